"""The history of a run: one JSON line per epoch, and a figure of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from autocrossdim.records.history import read_history
from autocrossdim.system.files import write_text, written_whole
from autocrossdim.system.text import for_matplotlib

WAITING = 5  # % of the time; less of it is not worth a remark
LABELS_IN_LEGEND = 8  # of the figure; of more, the mean is named
LABELS_IN_LINE = 4  # whose pseudo-Dice fits on one line of a terminal


class History:
    """The file history.jsonl.

    Args:
        path: The file. If it exists, its first `epochs` lines are kept: later ones are repeated after a resume.
        epochs: Number of finished epochs.
        monitor: Function that also receives each new line.

    Attributes:
        lines: The epochs so far.
    """

    def __init__(self, path: Path, *, epochs: int, monitor: Callable[[dict[str, Any]], None] | None = None) -> None:
        self.path, self.monitor = path, monitor
        self.lines = read_history(path)[:epochs]

    def add(self, entry: dict[str, Any]) -> None:
        """Add one epoch, write the file, and pass the epoch on to the monitor."""
        self.lines.append(entry)
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
        if self.monitor is not None:
            self.monitor(entry)

    def is_drawn(self, path: Path) -> bool:
        """Whether the figure at `path` exists, and was drawn after the last epoch was added."""
        if not path.exists():
            return False
        return not self.path.exists() or path.stat().st_mtime_ns >= self.path.stat().st_mtime_ns

    def draw(self, path: Path) -> None:
        """Write a figure of loss, pseudo-Dice and learning rate by epoch, as PNG."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 7))
        # Computing the layout takes as long as drawing.
        figure.subplots_adjust(left=0.11, right=0.98, bottom=0.07, top=0.98, hspace=0.08)
        loss, dice, rate = figure.subplots(3, 1, sharex=True)

        def draw(axes: Any, values: list[float | None], label: str | None = None) -> None:
            # Without markers, a single epoch would be invisible.
            axes.plot(epochs, values, label=label, marker=".", markersize=4)

        epochs = [line["epoch"] for line in self.lines]
        draw(loss, [line["loss"] for line in self.lines], "training")
        if any(line["validation_loss"] is not None for line in self.lines):
            draw(loss, [line["validation_loss"] for line in self.lines], "validation")
            names = list(self.lines[-1]["pseudo_dice"])
            for name in names:
                values = [line["pseudo_dice"][name] for line in self.lines]
                if len(names) <= LABELS_IN_LEGEND:
                    draw(dice, values, for_matplotlib(name))
                else:
                    dice.plot(epochs, values, color="0.7", linewidth=0.8)
            if len(names) > LABELS_IN_LEGEND:
                draw(dice, [line["mean_pseudo_dice"] for line in self.lines], f"mean of {len(names)} labels")
            dice.legend(fontsize="small")
        loss.legend(fontsize="small")
        loss.set_ylabel("loss")
        dice.set_ylabel("pseudo-Dice")
        draw(rate, [line["learning_rate"] for line in self.lines])
        rate.set_ylabel("learning rate")
        rate.set_xlabel("epoch")
        rate.xaxis.get_major_locator().set_params(integer=True)
        with written_whole(path) as temporary:
            figure.savefig(temporary, format="png", dpi=100)


def epoch_line(name: str, entry: dict[str, Any], *, last: int | None, left: str) -> str:
    """Return an epoch of the history as a line for the user.

    Args:
        name: Name of the run.
        entry: The epoch.
        last: Number of the last epoch, if it is known.
        left: Time that is left, in words; empty if it is shown elsewhere.
    """
    of = f" of {last}" if last else ""
    parts = [f"{name}: epoch {entry['epoch']}{of}", f"loss {entry['loss']:.3f}"]
    if entry["pseudo_dice"]:
        parts.append(f"pseudo-Dice {_in_words(entry['pseudo_dice'], entry['mean_pseudo_dice'])}")
    waited = 100 * entry["waited_for_data"] / entry["seconds"]
    waiting = f" ({waited:.0f} % waiting for data)" if waited >= WAITING else ""
    parts.append(f"{entry['patches'] / entry['seconds']:.1f} patches/s{waiting}")
    return ", ".join([*parts, *([left] if left else [])])


def _in_words(dice: dict[str, float | None], mean: float | None) -> str:
    """Return the pseudo-Dice of each label or, of many, their mean and the lowest."""
    if len(dice) <= LABELS_IN_LINE:
        return ", ".join(f"{label} {'-' if score is None else format(score, '.3f')}" for label, score in dice.items())
    known = {label: score for label, score in dice.items() if score is not None}
    if mean is None or not known:
        return "-"
    lowest = min(known, key=lambda label: known[label])
    return f"{mean:.3f} (mean of {len(known)} labels; lowest: {lowest} {known[lowest]:.3f})"
