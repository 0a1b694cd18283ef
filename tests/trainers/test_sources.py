"""Cases whose files were corrected after training: folds trained on them are named, and those validated are redone."""

import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

import autocrossdim
from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.splits import Split, load_or_make_splits
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.system.errors import UserError


@pytest.fixture
def own(planned: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Return a copy of the raw dataset and of its work directory, which may be changed."""
    raw, work = planned
    shutil.copytree(raw, tmp_path / raw.name)
    shutil.copytree(work, tmp_path / "own")
    return tmp_path / raw.name, tmp_path / "own"


def split_of(own: tuple[Path, Path], fold: int) -> Split:
    splits, _ = load_or_make_splits(load_dataset(own[0]), Workspace.of(own[0].name, own[1]).splits)
    return splits[fold]


def correct(raw: Path, case: str) -> None:
    """Change one voxel of the label of a case."""
    file = raw / "labelsTr" / f"{case}.nii.gz"
    label = sitk.ReadImage(str(file))
    label[0, 0, 0] = 1
    sitk.WriteImage(label, str(file))


def train(own: tuple[Path, Path], quick: dict[str, object], *, restart: bool = False) -> FoldFolder:
    autocrossdim.train(own[0], work=own[1], config="dx", fold=0, weights="random", set=quick, restart=restart)
    return Workspace.of(own[0].name, own[1]).fold("dx", 0)


def test_a_fold_trained_on_an_earlier_version_of_a_case_is_named(
    own: tuple[Path, Path], quick: dict[str, object]
) -> None:
    folder = train(own, quick)
    split = split_of(own, 0)
    assert Checkpoint.read(folder.latest).sources.keys() == set(split.train)
    correct(own[0], split.train[0])
    with pytest.raises(UserError, match=rf"fold_0.*trained on earlier versions of {split.train[0]}.*--restart"):
        train(own, quick)
    before = Checkpoint.read(folder.latest).sources
    after = Checkpoint.read(train(own, quick, restart=True).latest).sources
    assert [name for name in split.train if before[name] != after[name]] == [split.train[0]]


def test_only_corrected_validation_cases_are_validated_again(
    own: tuple[Path, Path], quick: dict[str, object], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = train(own, quick)
    (case,) = split_of(own, 0).val
    trained, result = folder.latest.stat().st_mtime_ns, folder.validation / f"{case}.nii.gz"
    before = folder.summary.read_text(encoding="utf-8")
    written = result.stat().st_mtime_ns
    train(own, quick)
    assert result.stat().st_mtime_ns == written
    correct(own[0], case)
    capfd.readouterr()
    train(own, quick)
    assert f"validating {case} again, because their files changed" in capfd.readouterr().err
    assert folder.latest.stat().st_mtime_ns == trained
    assert result.stat().st_mtime_ns > written
    assert folder.summary.read_text(encoding="utf-8") != before
