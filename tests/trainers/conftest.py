from collections.abc import Callable
from pathlib import Path

import pytest

from autocrossdim.api import plan_and_preprocess
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset
from autocrossdim.records.plan import PlanOptions
from autocrossdim.records.workspace import Workspace

QUICK = {"epochs": 2, "steps_per_epoch": 2, "validation_batches": 1, "workers": 0, "slices_first": False}


@pytest.fixture(scope="session")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A raw dataset of small volumes and the work folder in which it was planned and preprocessed."""
    folder = tmp_path_factory.mktemp("trainers")
    raw = folder / "Dataset901_Nodules"
    labels = {"background": 0, "organ": 1, "nodule": 2}
    write_dataset(raw, lambda random: nodules(random, (20, 28, 24)), labels, ISOTROPIC_SPACING, training=5)
    plan_and_preprocess(raw, folder / "work", options=PlanOptions(memory=1, trial=False), processes=1)
    return raw, folder / "work"


@pytest.fixture
def another_work(planned: tuple[Path, Path], tmp_path: Path) -> Callable[[str], Path]:
    """Make a work folder of that name in which everything was planned, and nothing trained."""
    raw, shared = planned

    def make(name: str) -> Path:
        space, mine = Workspace.of(raw.name, shared), Workspace.of(raw.name, tmp_path / name)
        mine.root.mkdir(parents=True)
        for file in space.root.iterdir():
            if file.is_file():
                (mine.root / file.name).write_bytes(file.read_bytes())
        (mine.root / "preprocessed").symlink_to(space.root / "preprocessed")
        return tmp_path / name

    return make


@pytest.fixture
def work(another_work: Callable[[str], Path]) -> Path:
    """A work folder of one's own in which everything was planned."""
    return another_work("work")


@pytest.fixture(scope="session")
def quick() -> dict[str, object]:
    """Hyper-parameters of a run of seconds."""
    return dict(QUICK)
