"""Fault injection: every command is killed or refused at every change of a file, then run again.

Run `python benchmarks/faults.py`. A trial disturbs one command once, runs it again, and compares everything on disk
with an undisturbed run. It is lost if a file differs, is missing or left over, if the second run fails, or if an error
of the file system does not end in one clear message that names the file. The harness is `tests/faults/`, of which the
slow tests run a sample. Trials come in random order; after Ctrl-C, those so far are reported.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "faults"))

from trials import Counts, Laboratory, Trial  # noqa: E402

KINDS = {
    "kill": ("kill",),
    "error": ("ENOSPC", "EIO", "EACCES"),
    "file size": ("limit", "limit (kill)"),
    "random moment": ("moment",),
}


def table(trials: list[Trial], minutes: float) -> str:
    """Return the results as Markdown: tried, survived and lost per command and kind."""
    reached = [trial for trial in trials if trial.is_reached]
    lost = [trial for trial in trials if trial.problems]
    lines = [
        "# Faults",
        "",
        f"{date.today():%Y-%m-%d}, `python benchmarks/faults.py`, {minutes:.0f} minutes. {len(trials)} trials, "
        f"{len(trials) - len(lost)} survived, {len(lost)} lost.",
        "",
        f"| command | {' | '.join(KINDS)} | survived | lost |",
        f"|---{'|---:' * (len(KINDS) + 2)}|",
    ]
    for command in sorted({trial.command for trial in trials}):
        mine = [trial for trial in trials if trial.command == command]
        tried = [sum(trial.kind in kinds for trial in mine) for kinds in KINDS.values()]
        bad = sum(bool(trial.problems) for trial in mine)
        lines.append(f"| {command} | {' | '.join(map(str, tried))} | {len(mine) - bad} | {bad} |")
    total = [sum(trial.kind in kinds for trial in trials) for kinds in KINDS.values()]
    lines.append(f"| all | {' | '.join(map(str, total))} | {len(trials) - len(lost)} | {len(lost)} |")
    calls = Counter(trial.where.split()[0] for trial in trials if trial.kind in (*KINDS["kill"], *KINDS["error"]))
    lines += [
        "",
        f"In {len(trials) - len(reached)} trials the command succeeded all the same: the random moment was after its "
        "end, no file reached the size, or the failed call does not matter (such as removing a file that does not "
        "exist). The result was then compared at once as well.",
        "",
        f"Calls that were killed or refused: {', '.join(f'{n} {name}' for name, n in calls.most_common())}.",
        *(f"\nLost: {trial.command}, {trial.kind} at {trial.where}: {'; '.join(trial.problems)}" for trial in lost),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all trials, and write results/faults.md and results/faults.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", nargs="+", default=[], help="Names of the commands to disturb (default: all).")
    parser.add_argument("--kills", type=int, help="Boundaries per command at which it is killed (default: all).")
    parser.add_argument(
        "--errors", type=int, help="Failing calls per command (default: each boundary with each error)."
    )
    parser.add_argument("--limits", type=int, default=6, help="Limits on the size of files per command.")
    parser.add_argument("--moments", type=int, default=12, help="Random moments per command.")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where a shell starts this in the background
    counts = Counts(options.kills, options.errors, options.limits, options.moments)
    started = time.monotonic()
    trials = []
    with tempfile.TemporaryDirectory() as folder, suppress(KeyboardInterrupt):
        for trial in Laboratory(Path(folder), options.commands).trials(counts):
            trials.append(trial)
            print(trial.command, trial.kind, trial.where, *(trial.problems or ["survived"]), sep=" | ", flush=True)
    options.output.mkdir(parents=True, exist_ok=True)
    report = table(trials, (time.monotonic() - started) / 60)
    (options.output / "faults.md").write_text(report, encoding="utf-8")
    content = [asdict(trial) for trial in trials]
    (options.output / "faults.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(report)


if __name__ == "__main__":
    main()
