"""Arms compared with a reference, for each number of training cases: table, figure and conclusion."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from autocrossdim.evaluation.interval import LEVEL
from autocrossdim.records.plan import GIGABYTE
from autocrossdim.records.study import Comparison, StudyRun, Table
from autocrossdim.studies.design import Finding
from autocrossdim.studies.figures import draw_arms
from autocrossdim.studies.statistics import case_groups, dice_matrix, difference, finite, mean_of, paired
from autocrossdim.system.text import counted

FEW_SEEDS = 3


def compare_arms(arms: Sequence[str], runs: Sequence[StudyRun]) -> Finding:
    """Compare all arms with the first one that has runs, paired by seed and held-out case.

    Intervals of differences hold for all comparisons of the study together (Bonferroni), so that one of many arms does
    not seem better by chance.

    Args:
        arms: Names of the arms, the reference first.
        runs: Their runs.
    """
    arms = [arm for arm in arms if any(run.arm == arm for run in runs)]
    sizes = sorted({run.size for run in runs})
    of = {(arm, size): [run for run in runs if (run.arm, run.size) == (arm, size)] for size in sizes for arm in arms}
    reference = arms[0]
    pairs = [(arm, size) for size in sizes for arm in arms[1:] if paired(of[arm, size], of[reference, size])[0]]
    level = 1 - (1 - LEVEL) / max(1, len(pairs))
    comparisons = tuple(compared(of[arm, size], of[reference, size], level=level) for arm, size in pairs)
    return Finding(
        conclusion=conclusion(reference, comparisons),
        table=_table(reference, of, comparisons),
        draw=partial(draw_arms, arms=arms, runs=runs),
        notes=tuple(reading_notes(runs, len(comparisons))),
        comparisons=comparisons,
    )


def compared(arm: Sequence[StudyRun], reference: Sequence[StudyRun], *, level: float = LEVEL) -> Comparison:
    """Return the paired difference in Dice between runs of two arms with the same training cases."""
    found = difference(arm, reference, level)
    return Comparison(
        arm=arm[0].arm,
        reference=reference[0].arm,
        size=arm[0].size,
        slicing=arm[0].slicing,
        seeds=len(paired(arm, reference)[0]),
        difference=found.value,
        low=finite(found.low),
        high=finite(found.high),
    )


def conclusion(reference: str, comparisons: Sequence[Comparison]) -> str:
    """Return what the comparisons show, in one sentence."""
    if not comparisons:
        return f"Nothing to compare with {reference} yet."
    parts = []
    for size in dict.fromkeys(each.size for each in comparisons):
        those = [each for each in comparisons if each.size == size]
        parts.append(f"with {counted(size, 'training case')}, {_of_size(reference, those)}")
    sentence = "; ".join(parts)
    return f"{sentence[0].upper()}{sentence[1:]}."


def _of_size(reference: str, comparisons: Sequence[Comparison]) -> str:
    conclusive = [each for each in comparisons if not lacking(each.seeds, each.low is not None)]
    shown = sorted((each for each in conclusive if each.is_shown), key=lambda each: -each.difference)
    reference = _quoted(reference)
    groups = {
        f"better than {reference}": [_difference(each) for each in shown if each.difference > 0],
        f"worse than {reference}": [_difference(each) for each in shown if each.difference < 0],
        f"no difference shown from {reference}": [_quoted(each.arm) for each in conclusive if not each.is_shown],
    }
    parts = [f"{what}: {_joined(arms)}" for what, arms in groups.items() if arms]
    observed: dict[str, list[str]] = {}
    for each in comparisons:
        if few := lacking(each.seeds, each.low is not None):
            observed.setdefault(few, []).append(f"{_quoted(each.arm)} {each.difference:+.3f} Dice")
    parts += [
        f"no conclusion about the difference from {reference} can be drawn from {few} (observed: {_joined(arms)})"
        for few, arms in observed.items()
    ]
    return ", ".join(parts)


def lacking(seeds: int, has_interval: bool) -> str:
    """Return from what no conclusion can be drawn, such as "a single seed"; empty if there are enough runs and cases.

    The interval of a single seed is about its trainings only. In simulations with eight patients, it contained the true
    difference in 65 % of the studies if trainings differed as much as patients, and in 41 % if they differed twice as
    much. With two seeds, that of two patients contained it in at least 98 %: it is wide, but it can be relied on.

    Args:
        seeds: Number of seeds.
        has_interval: Whether there is an interval over patients, which takes two of them.
    """
    few = [*(["a single seed"] if seeds == 1 else []), *([] if has_interval else ["fewer than two held-out patients"])]
    return " and ".join(few)


def reading_notes(runs: Sequence[StudyRun], comparisons: int) -> list[str]:
    """Return the notes that are needed to read the table."""
    _, groups = case_groups(runs[0])
    seeds, patients = len({run.seed for run in runs}), len(set(groups))
    unit = "held-out case" if patients == len(groups) else "group (patient)"
    tested = f"{counted(len(groups), 'held-out case')}" + (
        "" if patients == len(groups) else f" of {counted(patients, 'group')} (patients)"
    )
    notes = [
        f"Every run was tested on the same {tested}, which no run was trained on. Differences are paired by seed and "
        f"case; their 95 % intervals cover other {'patients' if seeds == 1 else 'seeds and patients'}."
    ]
    if comparisons > 1:
        notes.append(
            f"Intervals of the {comparisons} differences are adjusted: they hold for all of them together "
            "(Bonferroni). Intervals of the Dice of single arms are not adjusted."
        )
    if seeds == 1:
        notes.append(
            "There is only one seed, so the intervals do not include how much results vary between trainings. A "
            "conclusion needs at least two (--seeds)."
        )
    elif seeds < FEW_SEEDS:
        notes.append("With only two seeds, intervals are wide. More seeds (--seeds) narrow them.")
    if patients == 1:
        notes.append(f"There is only one {unit}, so no interval can be given.")
    return notes


def dice_text(runs: Sequence[StudyRun]) -> str:
    """Return the mean Dice of the runs of an arm, with its 95 % interval over seeds and cases."""
    names, groups = case_groups(runs[0])
    found = mean_of(dice_matrix(runs, names), groups)
    low, high = np.clip([found.low, found.high], 0, 1)
    return with_ends(found.value, low, high, "")


def _table(reference: str, of: dict[tuple[str, int], list[StudyRun]], comparisons: Sequence[Comparison]) -> Table:
    differences = {(each.arm, each.size): each for each in comparisons}
    rows = []
    for (arm, size), runs in of.items():
        if not runs:
            continue
        found = differences.get((arm, size))
        distances = [case.hd95 for run in runs for case in run.cases.values() if case.hd95 is not None]
        rows.append(
            (
                arm,
                str(size),
                str(len(runs)),
                dice_text(runs),
                "" if found is None else with_ends(found.difference, found.low, found.high, "+"),
                f"{np.mean(distances):.1f}" if distances else "–",
                f"{np.mean([run.training_seconds for run in runs]) / 60:.1f}",
                f"{np.mean([run.prediction_seconds for run in runs]):.1f}",
                f"{np.mean([run.memory_bytes for run in runs]) / GIGABYTE:.2f}",
            )
        )
    unit = next(run.unit for runs in of.values() for run in runs)
    return Table(
        headings=(
            *("arm", "training cases", "seeds", "Dice (95 % interval)", _heading(reference, len(comparisons))),
            *(f"HD95 ({unit})", "training (min)", "prediction (s/case)", "memory of a training step (GB)"),
        ),
        rows=tuple(rows),
    )


def _heading(reference: str, comparisons: int) -> str:
    return f"difference from {reference} (95 % interval{', adjusted' if comparisons > 1 else ''})"


def _difference(each: Comparison) -> str:
    return f"{_quoted(each.arm)} by {abs(each.difference):.3f} Dice ({each.low:+.3f} to {each.high:+.3f})"


def _quoted(arm: str) -> str:
    """Return the name of an arm for a list in a sentence, in quotes if it contains a comma."""
    return f"'{arm}'" if "," in arm else arm


def with_ends(value: float, low: float | None, high: float | None, sign: str) -> str:
    """Return a value for a table, with its interval if it is known."""
    if not np.isfinite(value):
        return "–"
    known = low is not None and high is not None and np.isfinite([low, high]).all()
    return f"{value:{sign}.3f}" + (f" ({low:{sign}.3f} to {high:{sign}.3f})" if known else "")


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
