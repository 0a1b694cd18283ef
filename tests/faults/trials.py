"""Trials: a command is disturbed, then run again, and everything on disk compared with an undisturbed run."""

import errno
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import scenarios
from failpoints import Failpoints, limit_file_size
from forked import Ended, Forked, Words
from tree import Tree, contents, differences

T = TypeVar("T")

ERRORS = (errno.ENOSPC, errno.EIO, errno.EACCES)
KILLS = ("kill", "limit (kill)", "moment")  # kinds of trials that kill the process
SAME_AS_BEFORE = ("fsync", "reopen")  # calls that change no file: killed after one, the files are those before it
REMOVE = ("unlink", "rmdir")
LONG_AGO = 1_600_000_000  # seconds since 1970; files of a trial are more recent
RANDOM_NAME = re.compile(r"\.[0-9a-f]{6}-\d+-[0-9a-f]{6}\.")  # before the name of a file that is being written


@dataclass(frozen=True)
class Counts:
    """Number of trials of each kind per command, spread over all that are possible; None for all.

    Attributes:
        kills: Boundaries at which the process is killed.
        errors: Failing calls: one boundary with ENOSPC, EIO or EACCES each.
        limits: File sizes at which the process is killed or the write fails, in turn.
        moments: Random moments at which the process is killed.
    """

    kills: int | None
    errors: int | None
    limits: int
    moments: int


@dataclass
class Trial:
    """What happened to a command that was disturbed once.

    Attributes:
        command: Name of the command.
        kind: `kill`, the name of an error, `limit` or `moment`.
        where: The boundary, the limit in bytes, or the time in seconds.
        is_reached: Whether the command was still running there.
        problems: What differed from the expected behaviour; empty if the trial was survived.
    """

    command: str
    kind: str
    where: str
    is_reached: bool = True
    problems: list[str] = field(default_factory=list)


@dataclass
class Undisturbed:
    """A command that was not disturbed.

    Attributes:
        words: The command line.
        before: Copy of all files before it ran.
        after: The files it left.
        boundaries: Boundaries that it passed.
        seconds: Time it took.
        largest: Size of the largest file in bytes.
    """

    words: Words
    before: Path
    after: Tree
    boundaries: list[str]
    seconds: float
    largest: int


class Laboratory:
    """Runs the commands, undisturbed and disturbed.

    Args:
        folder: Empty directory for everything.
        commands: Names of the commands to disturb; all if empty. The others prepare what these need.
    """

    def __init__(self, folder: Path, commands: Sequence[str] = ()) -> None:
        self.folder, self.site = folder, folder / "site"
        self.forked = Forked()
        raw = folder / "raw"
        self.forked.call(partial(scenarios.write_raw, raw))
        self.commands: dict[str, Undisturbed] = {}
        self.earlier = 0  # commands that were run undisturbed
        for chain in scenarios.chains(self.site):
            wanted = [name for name in chain if not commands or name in commands]
            if not wanted:
                continue
            _replace(raw, self.site)
            needed = list(chain)[: list(chain).index(wanted[-1]) + 1]
            done = {name: self._undisturbed(name, chain[name]) for name in needed}
            self.commands |= {name: done[name] for name in wanted}

    def trials(self, counts: Counts) -> Iterator[Trial]:
        """Yield the trials, in random order."""
        chance = random.Random(0)
        planned = [each for name in self.commands for each in self._planned(name, counts, chance)]
        chance.shuffle(planned)
        for trial, prepare, kill_after in planned:
            command = self.commands[trial.command]
            _replace(command.before, self.site)
            ended = self.forked.run(command.words, prepare, kill_after=kill_after)
            trial.is_reached = ended.code != 0
            trial.problems += self._after(ended, trial, command.after)
            again = self.forked.run(command.words)
            if again.code != 0:
                trial.problems.append(f"run again: exit code {again.code}: {again.said[-2000:]}")
            trial.problems += [f"run again: {each}" for each in differences(command.after, contents(self.site))]
            yield trial

    def _undisturbed(self, name: str, words: Words) -> Undisturbed:
        before, record = self.folder / "before" / name, self.folder / f"boundaries of {name}"
        self.earlier += 1
        _age(self.site, LONG_AGO + self.earlier)
        _replace(self.site, before)
        started = time.monotonic()
        ended = self.forked.run(words, Failpoints(self.site, record).install)
        assert ended.code == 0, f"{' '.join(words)}:\n{ended.said}"
        return Undisturbed(
            words,
            before,
            contents(self.site),
            [RANDOM_NAME.sub("", line) for line in record.read_text(encoding="utf-8").splitlines()],
            time.monotonic() - started,
            max(file.stat().st_size for file in self.site.rglob("*") if file.is_file()),
        )

    def _planned(
        self, name: str, counts: Counts, chance: random.Random
    ) -> Iterator[tuple[Trial, Callable[[], object], float | None]]:
        """Yield each trial of a command, what disturbs it, and the time after which it is killed."""
        command = self.commands[name]
        boundaries, numbers = command.boundaries, _distinct(command.boundaries)
        after_changes = [n for n in numbers if n == 0 or boundaries[n - 1].split()[0] not in SAME_AS_BEFORE]

        def fail(number: int, error: int | None) -> Callable[[], object]:
            return Failpoints(self.site, self.folder / "boundaries", number, error).install

        for number in _sample(after_changes, counts.kills, chance):
            yield Trial(name, "kill", boundaries[number]), fail(number, None), None
        for number, error in _sample([*itertools.product(numbers, ERRORS)], counts.errors, chance):
            yield Trial(name, errno.errorcode[error], boundaries[number]), fail(number, error), None
        for turn in range(counts.limits):
            limit, kill = int(command.largest ** chance.uniform(0.3, 1)), turn % 2 == 0
            trial = Trial(name, "limit (kill)" if kill else "limit", f"{limit} bytes")
            yield trial, partial(limit_file_size, limit, kill=kill), None
        for _ in range(counts.moments):
            moment = chance.uniform(0, command.seconds)
            yield Trial(name, "moment", f"{moment:.3f} s"), lambda: None, moment

    def _after(self, ended: Ended, trial: Trial, expected: Tree) -> list[str]:
        """Return what is wrong right after the disturbed run."""
        if ended.code == 0:
            found = differences(expected, contents(self.site))
            # What cannot be removed stays until the command is run again.
            kept = f"left over: {trial.where.partition(' ')[2]}" if trial.where.startswith(REMOVE) else None
            return [f"succeeded, but {each}" for each in found if each != kept]
        problems = ["a traceback was shown"] if "Traceback" in ended.said else []
        if trial.kind in KILLS:
            if ended.code not in (-signal.SIGKILL, -signal.SIGXFSZ):
                problems.append(f"exit code {ended.code}: {ended.said[-2000:]}")
            return problems
        last = ended.said.strip().rpartition("\n")[2]
        if ended.code != 2 or not last.startswith("error: ") or ended.said.count("error:") != 1:
            problems.append(f"exit code {ended.code}, not one clear message: {ended.said[-2000:]}")
        elif self.folder.name not in last:
            problems.append(f"the message names no file: {last}")
        hidden = [path for path in self.site.rglob(".*") if path.name not in {Path(name).name for name in expected}]
        return problems + [f"left over: {path.name}" for path in hidden]


def _distinct(boundaries: Sequence[str]) -> list[int]:
    """Return the numbers of the boundaries; of writes to a file that follow each other, the first and the last one."""
    return [
        number
        for number, each in enumerate(boundaries)
        if not (each.startswith("write ") and boundaries[number - 1 : number + 2] == [each] * 3)
    ]


def _sample(choices: Sequence[T], count: int | None, chance: random.Random) -> Sequence[T]:
    return choices if count is None else chance.sample(choices, min(count, len(choices)))


def _replace(source: Path, target: Path) -> None:
    """Make a directory the copy of another one, with the times of its files."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, symlinks=True)


def _age(folder: Path, seconds: int) -> None:
    """Give new files a time long ago, another one for each command.

    Records keep the time of a file only if it is not quite recent, and the trials of a command come long after it.
    """
    for path in folder.rglob("*"):
        if path.stat().st_mtime > seconds:
            os.utime(path, (seconds, seconds))


def main() -> None:
    """Run the trials that the arguments ask for, and print each as a line of JSON."""
    folder, counts, *commands = sys.argv[1:]
    for trial in Laboratory(Path(folder), commands).trials(Counts(**json.loads(counts))):
        print(json.dumps(asdict(trial)), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
