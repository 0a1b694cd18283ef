"""Figures of studies, as PNG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autocrossdim.records.study import StudyRun
from autocrossdim.system.files import written_whole
from autocrossdim.system.text import counted, for_matplotlib

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe and Ito's


def draw_arms(path: Path, *, arms: Sequence[str], runs: Sequence[StudyRun]) -> None:
    """Draw the Dice of every run, one row per arm and one panel per number of training cases; a bar marks the mean."""
    from matplotlib.figure import Figure

    sizes = sorted({run.size for run in runs})
    figure = Figure(figsize=(2 + 3.2 * len(sizes), 1.2 + 0.4 * len(arms)), layout="constrained")
    panels = figure.subplots(1, len(sizes), sharex=True, sharey=True, squeeze=False)[0]
    for panel, size in zip(panels, sizes, strict=True):
        for row, arm in enumerate(arms):
            found = [mean_dice(run) for run in runs if (run.arm, run.size) == (arm, size)]
            panel.scatter(found, [row] * len(found), s=22, color=COLOURS[0], alpha=0.7, linewidths=0)
            if found:
                panel.plot([np.nanmean(found)] * 2, [row - 0.3, row + 0.3], color=COLOURS[1], linewidth=2)
        panel.set_title(counted(size, "training case"), fontsize=10)
        panel.set_xlabel("mean Dice of the held-out cases")
        panel.grid(axis="x", alpha=0.3)
    panels[0].set_yticks(range(len(arms)), [for_matplotlib(arm) for arm in arms])
    panels[0].set_ylim(len(arms) - 0.5, -0.5)
    save(figure, path)


def mean_dice(run: StudyRun) -> float:
    """Return the mean Dice of the held-out cases of a run; NaN if none has any label."""
    known = [case.dice for case in run.cases.values() if case.dice is not None]
    return float(np.mean(known)) if known else float("nan")


def save(figure: "Figure", path: Path) -> None:
    """Write a figure as PNG, completely or not at all."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
