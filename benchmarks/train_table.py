"""Tables of the runs of `train.py`: accuracy, paired differences and learning curves.

    python benchmarks/train_table.py [--update benchmarks/results/train.md]

prints Markdown, or replaces the tables in a page. Everything is recomputed from the metrics per case in
`benchmarks/results/train`. A case's value is the mean over its labels. Intervals are those of the studies: a bootstrap
of seeds and of groups (patients) of cases, expanded for their small number (`autocrossdim.evaluation.interval`).
"""

import argparse
import itertools
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from paired import estimated

from autocrossdim.evaluation.interval import Floats

RESULTS = Path(__file__).parent / "results" / "train"
OLDER = {"tuning": False, "device": "cpu", "workers": None, "folds": False}  # what older records leave out
MARKS = ("<!-- tables of train_table.py -->", "<!-- end of tables -->")

Record = dict[str, Any]


@dataclass(frozen=True)
class Arm:
    """The runs that differ in their seed only.

    Attributes:
        runs: Record by seed.
    """

    runs: dict[int, Record]

    @property
    def first(self) -> Record:
        """One run, for what all have in common."""
        return next(iter(self.runs.values()))

    @property
    def task(self) -> tuple[str, int]:
        """Dataset, with what it is tested on, and number of training cases."""
        job = self.first["job"]
        return job["dataset"] + (" (tuning)" if {**OLDER, **job}["tuning"] else ""), job["cases"]

    @property
    def name(self) -> str:
        """Tool, configuration, variant and budget."""
        job = {**OLDER, **self.first["job"]}
        budget = f"{job['steps']} steps" if job["steps"] else f"{round(job['seconds'] / 60, 2):g} min"
        variant = f" ({job['variant']})" if job["variant"] else ""
        device = f", {self.first['gpu']}" if self.device != "cpu" else ""
        folds = " per fold" if job["folds"] else ""
        return f"{self.first['tool']} {job['config']}{variant}, {budget}{folds}{device}"

    @property
    def device(self) -> str:
        """Device on which the networks were trained, `cpu` or `cuda`."""
        return str({**OLDER, **self.first["job"]}["device"])

    @property
    def groups(self) -> dict[str, str]:
        """Group of each test case of any seed."""
        return {case: group for run in self.runs.values() for case, group in run["groups"].items()}

    def minutes(self, clock: str, seeds: Sequence[int] | None = None) -> float:
        """Mean training time (`cpu` or `wall`) over some seeds, or all, in minutes."""
        chosen = self.runs if seeds is None else seeds
        return float(np.mean([self.runs[seed]["training"][f"{clock}_seconds"] for seed in chosen])) / 60

    def values(self, metric: str, seeds: Sequence[int], cases: Sequence[str]) -> Floats:
        """Return a metric per seed and case, shape `(seeds, cases)`; NaN where undefined or not a test case."""
        return np.array(
            [[_case_value(self.runs[seed]["metrics"].get(case), metric) for case in cases] for seed in seeds]
        )


def _case_value(labels: dict[str, dict[str, float | None]] | None, metric: str) -> float:
    known = [value for label in (labels or {}).values() if (value := label[metric]) is not None]
    return float(np.mean(known)) if known else np.nan


def read(folder: Path) -> list[Arm]:
    """Return the arms of all results, sorted by task, tool and training time."""
    arms: dict[str, dict[int, Record]] = defaultdict(dict)
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text())
        arms[file.stem.rsplit("_seed", 1)[0]][record["job"]["seed"]] = record
    found = [Arm(runs) for runs in arms.values()]
    return sorted(found, key=lambda arm: (*arm.task, arm.first["tool"], arm.first["job"]["config"], arm.minutes("cpu")))


def accuracy(arms: Sequence[Arm]) -> Iterator[str]:
    """Yield the table with one line per arm."""
    yield "| dataset | cases | run | seeds | steps × batch, patch | training, CPU min (wall) | Dice | HD95 | ASSD |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for arm in arms:
        first, (dataset, cases) = arm.first, arm.task
        tests = sorted(arm.groups)
        groups = [arm.groups[case] for case in tests]
        scores = [
            _score(arm.values(metric, list(arm.runs), tests), groups, digits, largest=largest)
            for metric, digits, largest in (("Dice", 3, 1.0), ("HD95", 2, np.inf), ("ASSD", 2, np.inf))
        ]
        size = f"{first['steps']} × {first['batch_size']}, {' × '.join(map(str, first['patch_size']))}"
        time = f"{arm.minutes('cpu'):.0f} ({arm.minutes('wall'):.0f})"
        yield f"| {dataset} | {cases} | {arm.name} | {len(arm.runs)} | {size} | {time} | {' | '.join(scores)} |"


def differences(arms: Sequence[Arm]) -> Iterator[str]:
    """Yield the table of paired differences: ours minus nnU-Net, with the same task, device and seeds."""
    yield "| dataset | cases | ours | minus | seeds | CPU time, ours / nnU-Net | Dice | cases better | HD95 |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for ours, other in itertools.product(arms, arms):
        tools = (ours.first["tool"], other.first["tool"])
        if (ours.task, ours.device, tools) == (other.task, other.device, ("autocrossdim", "nnU-Net")):
            yield from _difference(ours, other)


def variants(arms: Sequence[Arm]) -> Iterator[str]:
    """Yield the table of paired differences: every arm with the default settings minus those with other settings."""
    yield "| dataset | cases | default | minus | seeds | CPU time | Dice | cases better | HD95 |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for usual, changed in itertools.product(arms, arms):
        first, second = ({**OLDER, **arm.first["job"], "set": None, "seed": None} for arm in (usual, changed))
        if first["variant"] is None and first != second and first == {**second, "variant": None}:
            yield from _difference(usual, changed)


def _difference(ours: Arm, other: Arm) -> Iterator[str]:
    """Yield the line of one paired difference, unless the arms have no seed in common."""
    seeds = sorted(ours.runs.keys() & other.runs.keys())
    if not seeds:
        return
    cases = sorted(ours.groups.keys() & other.groups.keys())
    groups = [ours.groups[case] for case in cases]
    dice, hd95 = (ours.values(metric, seeds, cases) - other.values(metric, seeds, cases) for metric in ("Dice", "HD95"))
    known = dice[:, ~np.isnan(dice).all(axis=0)]
    better = f"{(np.nanmean(known, axis=0) > 0).sum()} of {known.shape[1]}"
    share = f"{ours.minutes('cpu', seeds) / other.minutes('cpu', seeds):.2f}"
    scores = f"{_score(dice, groups, 3, '+')} | {better} | {_score(hd95, groups, 2, '+')}"
    yield f"| {' | '.join(map(str, ours.task))} | {ours.name} | {other.name} | {len(seeds)} | {share} | {scores} |"


def curves(arms: Sequence[Arm]) -> Iterator[str]:
    """Yield the table of learning curves: mean pseudo-Dice in each eighth of the training."""
    yield f"| dataset | cases | run | {' | '.join(f'{eighth}/8' for eighth in range(1, 9))} |"
    yield "|---" * 11 + "|"
    for arm in arms:
        points: list[list[float]] = [[] for _ in range(8)]
        for step, dice in (point for run in arm.runs.values() for point in run["curve"]):
            if dice is not None:
                points[int(8 * (step - 1) // arm.first["steps"])].append(dice)
        if not any(points):
            continue  # ours logs none where all cases are trained on
        shown = " | ".join(f"{np.mean(found):.2f}" if found else "-" for found in points)
        yield f"| {arm.task[0]} | {arm.task[1]} | {arm.name} | {shown} |"


def _score(values: Floats, groups: Sequence[str], digits: int, sign: str = "", largest: float = np.inf) -> str:
    """Return a mean with its interval; without a sign, the ends are limited to what the metric can be."""
    found = estimated(values, groups)
    ends = np.array([found.low, found.high])
    low, high = ends if sign else ends.clip(0, largest)
    shown = f"{found.value:{sign}.{digits}f}"
    return shown if np.isnan(low) else f"{shown} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def tables(arms: Sequence[Arm]) -> str:
    """Return all tables as Markdown."""
    parts = [
        ("Accuracy on the test cases (95 % interval). Distances in mm; SunnybrookSlices: pixels.", accuracy(arms)),
        (
            "Paired differences, ours minus nnU-Net (95 % interval); a negative HD95 is in our favour.",
            differences(arms),
        ),
        ("Paired differences, the default settings minus others (95 % interval).", variants(arms)),
        ("Pseudo-Dice during training, as each tool logs it on patches of training cases.", curves(arms)),
    ]
    return "\n\n".join(f"{caption}\n\n" + "\n".join(lines) for caption, lines in parts)


def update(page: Path, text: str) -> None:
    """Replace what stands between the marks in `page`."""
    before, rest = page.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    page.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}")


def main() -> None:
    """Print the tables, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder with the results (default: %(default)s)")
    parser.add_argument("--update", type=Path, metavar="PAGE", help="page whose tables are replaced")
    arguments = parser.parse_args()
    text = tables(read(arguments.results))
    if arguments.update:
        update(arguments.update, text)
    else:
        print(text)


if __name__ == "__main__":
    main()
