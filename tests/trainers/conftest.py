from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import autocrossdim
from autocrossdim.commands.plugins import FoldTask
from autocrossdim.data.splits import Split
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.run_state import RunState
from autocrossdim.records.workspace import FoldFolder, Workspace
from trainers.run import Run

QUICK = {"epochs": 2, "steps_per_epoch": 2, "validation_batches": 1, "workers": 0, "slices_first": False}


def checkpoint_of(run: Run, *, epoch: int = 3, complete: bool = True, **state: Any) -> Checkpoint:
    """Return the checkpoint that a run would have written, without weights."""
    return Checkpoint(
        plan=run.task.plan,
        configuration=run.configuration.name,
        fold=run.task.fold,
        split={"train": list(run.task.split.train), "val": list(run.task.split.val)},
        network={},
        settings=run.requested.model_dump(),
        provenance={"asked": run.task.weights},
        run=RunState(epoch=epoch, step=50 * epoch, complete=complete, **state),
    )


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory, write_nodules: Callable[[Path], Path]) -> tuple[Path, Path]:
    """Return a raw dataset of small volumes, and the work directory in which it was planned and preprocessed."""
    folder = tmp_path_factory.mktemp("trainers")
    raw = write_nodules(folder)
    autocrossdim.plan_and_preprocess(
        raw, work=folder / "work", encoder="test_efficientnet", memory=1, trial=False, processes=1
    )
    return raw, folder / "work"


@pytest.fixture
def another_work(planned: tuple[Path, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Make a work directory of that name in which the dataset is planned and nothing is trained."""
    raw, shared = planned

    def make(name: str) -> Path:
        source, copy = Workspace.of(raw.name, shared), Workspace.of(raw.name, tmp_path / name)
        copy.root.mkdir(parents=True)
        for file in source.root.iterdir():
            if file.is_file():
                (copy.root / file.name).write_bytes(file.read_bytes())
        (copy.root / "preprocessed").symlink_to(source.root / "preprocessed")
        return tmp_path / name

    return make


@pytest.fixture
def work(another_work: Callable[[str], Path]) -> Path:
    """Return a work directory of the test's own in which the dataset is planned."""
    return another_work("work")


@pytest.fixture(scope="session")
def quick() -> dict[str, object]:
    """Return settings of a run of seconds."""
    return dict(QUICK)


@pytest.fixture
def train(planned: tuple[Path, Path], work: Path) -> Callable[..., FoldFolder]:
    """Train a fold in seconds: `train(0, work=..., config="dx", weights="random", restart=True, epochs=3, ...)`.

    Keywords that are not options of the command are settings.
    """
    options = ("config", "weights", "restart", "device", "devices")

    def call(fold: int | str = 0, *, work: Path = work, **given: Any) -> FoldFolder:
        chosen = {"weights": "random", "config": "dx"} | {key: given.pop(key) for key in options if key in given}
        autocrossdim.train(planned[0], work=work, fold=fold, set={**QUICK, **given}, **chosen)
        return Workspace.of(planned[0].name, work).fold(chosen["config"], fold)

    return call


@pytest.fixture
def make_run(make_plan: Callable[..., Any], tmp_path: Path) -> Callable[..., Run]:
    """Make a run of one small configuration of which nothing exists: `make_run(dims=3, weights="imagenet", epochs=5)`.

    All other keywords are settings.
    """

    def make(dims: int = 3, weights: str = "random", **settings: Any) -> Run:
        plan = make_plan(dims=dims)
        configuration = plan.configuration()
        return Run.of(
            FoldTask(
                plan=plan,
                configuration=configuration,
                store=Store(tmp_path / "preprocessed"),
                groups={},
                fold=0,
                split=Split(train=("a",), val=("b",)),
                folder=Workspace(tmp_path / plan.dataset).fold(configuration.name, 0),
                weights=weights,
                settings=settings,
            )
        )

    return make
