import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.run_state import RunState
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system import console
from trainers.display import MEASURED, WARM_UP, Display
from trainers.run import Run

STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


def steps(run: Run, state: RunState, number: int) -> None:
    """Take steps of 2 s, the first of which take a minute."""
    with console.bars() as shown:
        display = Display(run, state, shown)
        for _ in range(number):
            state.step += 1
            state.losses.append(0.5)
            state.seconds += 60 if state.step <= WARM_UP else 2
            display.step(0.5)
        if shown.visible:
            shown._progress.refresh()  # type: ignore[union-attr]


def test_one_line_with_the_time_after_the_first_steps(
    make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(dims=2, epochs=2, steps_per_epoch=50)
    run = replace(run, task=replace(run.task, turn=(1, 5)))
    steps(run, RunState(), WARM_UP + MEASURED + 5)
    said = capsys.readouterr().err
    # 88 more steps of 2 s; each of the other folds takes 140 s more, which are over here.
    expected = "omnia fold 0: about 3 min left in this fold, 24 min in all 5 folds, estimated from 10 steps on this "
    assert re.fullmatch(f"{STAMP}{expected}machine. Validation is not included.\n", said)


def test_bars_on_a_terminal_of_80_columns(
    terminal: None, make_run: Callable[..., Run], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(dims=2, epochs=100, steps_per_epoch=50)
    run = replace(run, task=replace(run.task, turn=(2, 5)))
    steps(run, RunState(epoch=11, step=550, seconds=1100.0), 23)
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    fold, epoch = [line.rstrip() for line in drawn.splitlines() if line.strip()][-2:]
    assert re.fullmatch(r"omnia fold 0 \(2/5\) ━[━╸╺ ]+ 2 h 28 min left, all folds 10 h 48 min", fold)
    assert re.fullmatch(r"epoch 12/100 +━[━╸╺ ]+ step 23/50, loss 0.500, pseudo-Dice -", epoch)
    assert len(fold) <= 80


@pytest.mark.slow
def test_training_is_bitwise_the_same_with_bars(
    another_work: Callable[[str], Path],
    train: Callable[..., FoldFolder],
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain = Checkpoint.read(train(work=another_work("plain"), epochs=1).latest).network
    request.getfixturevalue("terminal")
    drawn = Checkpoint.read(train(work=another_work("drawn"), epochs=1).latest).network
    assert "pseudo-Dice" in capsys.readouterr().err
    for name, tensor in plain.items():
        assert torch.equal(tensor, drawn[name]), name
