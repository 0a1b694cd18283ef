import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system.errors import UserError
from trainers.history import History
from trainers.monitor import monitor_for, numbers

ENTRY = {
    "epoch": 1,
    "step": 50,
    "loss": 0.5,
    "validation_loss": None,
    "pseudo_dice": {"liver": 0.75, "rare": None},
}


def test_labels_become_names_and_what_is_unknown_is_left_out() -> None:
    assert numbers(ENTRY) == {"epoch": 1.0, "step": 50.0, "loss": 0.5, "pseudo_dice/liver": 0.75}


def test_the_file_and_tensorboard_get_the_same(tmp_path: Path) -> None:
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    folder = FoldFolder(tmp_path)
    History(folder.history, 0, monitor_for("tensorboard", folder)).add(ENTRY)
    events = reading.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Scalars("pseudo_dice/liver")[0].value == pytest.approx(0.75)
    assert events.Scalars("loss")[0].step == json.loads(folder.history.read_text())["step"]


def test_mlflow_gets_one_run_a_fold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []

    class Run:
        def __init__(self, **named: Any) -> None:
            calls.append(("run", named["run_id"], named["run_name"]))

        def __enter__(self) -> None: ...

        def __exit__(self, *error: object) -> None: ...

    known: list[Any] = []
    stand_in = SimpleNamespace(
        set_experiment=lambda name: calls.append(("experiment", name)),
        search_runs=lambda **_: known,
        start_run=Run,
        log_metrics=lambda metrics, step: calls.append((metrics["loss"], step)),
    )
    monkeypatch.setitem(sys.modules, "mlflow", stand_in)
    folder = FoldFolder(tmp_path / "Dataset001_Liver" / "models" / "dx" / "fold_0")
    send = monitor_for("mlflow", folder)
    assert send is not None
    send(ENTRY)
    known.append(SimpleNamespace(info=SimpleNamespace(run_id="abc")))
    send(ENTRY)
    assert calls == [
        ("experiment", "Dataset001_Liver"),
        ("run", None, "dx/fold_0"),
        (0.5, 50),
        ("run", "abc", "dx/fold_0"),
        (0.5, 50),
    ]


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_what_is_not_installed_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mlflow", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"autocrossdim\[{name}\]"):
        monitor_for(name, FoldFolder(tmp_path))
