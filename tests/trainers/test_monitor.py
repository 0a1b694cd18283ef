import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from autocrossdim.system.errors import UserError
from trainers.history import History
from trainers.monitor import monitor_for, numbers
from trainers.run import Run

ENTRY = {"epoch": 1, "step": 50, "loss": 0.5, "validation_loss": None, "pseudo_dice": {"liver": 0.75, "rare": None}}


def test_nested_numbers_are_named_after_their_label_and_unknown_ones_left_out() -> None:
    assert numbers(ENTRY) == {"epoch": 1.0, "step": 50.0, "loss": 0.5, "pseudo_dice/liver": 0.75}


def test_tensorboard_receives_what_the_file_holds(make_run: Callable[..., Run]) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = make_run(monitor="tensorboard")
    History(run.folder.history, epochs=0, monitor=monitor_for(run)).add(ENTRY)
    events = reading.EventAccumulator(str(run.folder.root / "tensorboard"))
    events.Reload()
    assert events.Scalars("pseudo_dice/liver")[0].value == pytest.approx(0.75)
    assert events.Scalars("loss")[0].step == json.loads(run.folder.history.read_text(encoding="utf-8"))["step"]


def test_mlflow_receives_one_run_per_fold(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class MlflowRun:
        def __init__(self, **named: Any) -> None:
            calls.append(("run", named["run_id"], named["run_name"]))

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    existing: list[Any] = []
    stand_in = SimpleNamespace(
        set_experiment=lambda name: calls.append(("experiment", name)),
        search_runs=lambda **_: existing,
        start_run=MlflowRun,
        log_metrics=lambda metrics, step: calls.append((metrics["loss"], step)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    send = monitor_for(make_run(monitor="mlflow"))
    assert send is not None
    send(ENTRY)
    existing.append(SimpleNamespace(info=SimpleNamespace(run_id="abc")))
    send(ENTRY)
    assert calls == [
        ("experiment", "Dataset001_Tiny"),
        ("run", None, "dx/fold_0"),
        (0.5, 50),
        ("run", "abc", "dx/fold_0"),
        (0.5, 50),
    ]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_tool_that_is_not_installed_is_named_with_the_command_that_installs_it(
    name: str, make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("mlflow", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"autocrossdim\[{name}\]"):
        monitor_for(make_run(monitor=name))
