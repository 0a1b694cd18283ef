import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autocrossdim.system.errors import UserError
from trainers.history import History, epoch_line


def entry(epoch: int, label: str = "organ") -> dict[str, Any]:
    return {
        "epoch": epoch,
        "loss": 1 / epoch,
        "validation_loss": 2 / epoch,
        "pseudo_dice": {label: 1 - 1 / epoch, "rare": None},
        "mean_pseudo_dice": 1 - 1 / epoch,
        "learning_rate": 1e-3,
        "patches": 100,
        "seconds": 50.0,
        "waited_for_data": 5.0,
    }


def test_lines_after_the_resumed_epoch_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    first = History(path, epochs=0)
    for epoch in (1, 2, 3):
        first.add(entry(epoch))
    resumed = History(path, epochs=2)
    resumed.add(entry(3) | {"loss": 0.25})
    assert [json.loads(line)["loss"] for line in path.read_text(encoding="utf-8").splitlines()] == [1, 0.5, 0.25]


def test_a_damaged_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "history.jsonl").write_text('{"epoch": 1')
    with pytest.raises(UserError, match=r"history\.jsonl: damaged .* Delete it and run the same command again"):
        History(tmp_path / "history.jsonl", epochs=1)


def test_the_figure_of_a_single_epoch_is_not_blank(tmp_path: Path) -> None:
    def coloured(epochs: int) -> int:
        history = History(tmp_path / f"{epochs}.jsonl", epochs=0)
        for epoch in range(1, epochs + 1):
            history.add(entry(epoch))
        history.draw(tmp_path / "figure.png")
        pixels = np.asarray(Image.open(tmp_path / "figure.png").convert("RGB"), dtype=int)[:, :650]  # without legends
        return int((pixels.max(axis=2) - pixels.min(axis=2) > 60).sum())

    assert coloured(1) > 20
    assert coloured(2) > coloured(1)


@pytest.mark.parametrize("label", [r"$\foo$", "$x_$", "a$b", r"\frac", "[/b]", "_hidden"])
def test_every_label_can_be_drawn(tmp_path: Path, label: str) -> None:
    history = History(tmp_path / "history.jsonl", epochs=0)
    history.add(entry(1, label))
    history.draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_an_epoch_in_one_line() -> None:
    assert epoch_line("dx fold 0", entry(2), last=8, left="90 s left") == (
        "dx fold 0: epoch 2 of 8, loss 0.500, pseudo-Dice organ 0.500, rare -, 2.0 patches/s (10 % waiting for data), "
        "90 s left"
    )


def test_many_labels_and_little_waiting_are_summarised() -> None:
    dice = {**{f"rib {number}": 0.9 for number in range(11)}, "gallbladder": 0.3, "rare": None}
    many = entry(2) | {"pseudo_dice": dice, "mean_pseudo_dice": 0.85, "waited_for_data": 1.0}
    line = epoch_line("dx fold 0", many, last=None, left="")
    assert line == (
        "dx fold 0: epoch 2, loss 0.500, pseudo-Dice 0.850 (mean of 12 labels; lowest: gallbladder 0.300), "
        "2.0 patches/s"
    )
