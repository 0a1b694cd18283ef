"""What happened, an epoch a line, and its picture."""

import json
from pathlib import Path
from typing import Any

from autocrossdim.system.errors import UserError
from autocrossdim.system.files import write_text, written_whole
from trainers.monitor import Monitor


class History:
    """history.jsonl: the source of truth about a run; lines past the checkpoint resumed from are dropped."""

    def __init__(self, path: Path, epochs_done: int, monitor: Monitor | None = None) -> None:
        self.path, self.monitor = path, monitor
        self.lines: list[dict[str, Any]] = []
        if path.exists():
            try:
                self.lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            except ValueError as error:
                raise UserError(f"{path}: damaged ({error}). Delete it and type the same command again.") from error
        self.lines = self.lines[:epochs_done]

    def add(self, entry: dict[str, Any]) -> None:
        """Add one epoch, write the file, and pass the epoch on to the monitor."""
        self.lines.append(entry)
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in self.lines))
        if self.monitor is not None:
            self.monitor(entry)

    def draw(self, path: Path) -> None:
        """Draw loss, pseudo-Dice and learning rate over the epochs."""
        from matplotlib.figure import Figure

        epochs = [line["epoch"] for line in self.lines]
        figure = Figure(figsize=(8, 7), layout="constrained")
        loss, dice, rate = figure.subplots(3, 1, sharex=True)
        loss.plot(epochs, [line["loss"] for line in self.lines], label="training")
        if any(line["validation_loss"] is not None for line in self.lines):
            loss.plot(epochs, [line["validation_loss"] for line in self.lines], label="validation")
            for name in self.lines[-1]["pseudo_dice"]:
                dice.plot(epochs, [line["pseudo_dice"][name] for line in self.lines], label=name)
            dice.legend(fontsize="small")
        loss.legend(fontsize="small")
        loss.set_ylabel("loss")
        dice.set_ylabel("pseudo-Dice")
        rate.plot(epochs, [line["learning_rate"] for line in self.lines])
        rate.set_ylabel("learning rate")
        rate.set_xlabel("epoch")
        with written_whole(path) as temporary:
            figure.savefig(temporary, format="png", dpi=100)
