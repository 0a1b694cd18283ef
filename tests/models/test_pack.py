import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autocrossdim import export
from autocrossdim.inference.predictor import Predictor
from autocrossdim.models.model_file import ModelFile
from autocrossdim.models.source import open_model
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.run_state import RunState
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import write_json

CASES = ("mueller_anna", "schmidt_jan", "weber_eva", "koch_ida")


def texts(file: Path) -> dict[str, str]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name).decode() for name in archive.namelist() if not name.startswith("weights/")}


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    """`trained`, to be changed."""
    return Path(shutil.copytree(trained, tmp_path / "work" / trained.name))


def change(checkpoint: Path, **fields: Any) -> None:
    read = Checkpoint.read(checkpoint)
    for name, value in fields.items():
        setattr(read, name, value)
    read.write(checkpoint)


def test_no_patient_and_no_folder_leaves_the_house(exported: Path) -> None:
    content = exported.read_bytes()
    for private in (*CASES, "doctor_x", "/home", str(exported.parent), "b0.pth"):
        assert private.encode() not in content, private
        assert private.encode("utf-16-le") not in content, private


def test_the_same_folds_give_the_same_bytes(trained: Path, exported: Path, tmp_path: Path) -> None:
    assert export(trained, tmp_path / "tiny.acd").read_bytes() == exported.read_bytes()


def test_data_folds_and_results_are_told_in_numbers(exported: Path) -> None:
    about = ModelFile.read(exported).about
    assert about.data is not None
    assert (about.data.cases, about.data.median_shape) == (4, (23, 16, 19))
    assert about.data.median_spacing == (1.5, 1, 1)
    dx = about.configurations["dx"]
    assert list(dx.folds) == ["fold_0", "fold_1"]
    assert (dx.folds["fold_0"].training_cases, dx.folds["fold_0"].validation_cases) == (2, 2)
    assert dx.cross_validation is not None
    assert dx.cross_validation.labels["block"]["Dice"].mean == pytest.approx(0.65)
    assert dx.cross_validation.foreground["Dice"].low < 0.65 < dx.cross_validation.foreground["Dice"].high


def test_the_starting_weights_keep_their_names_and_licences(exported: Path) -> None:
    folds = ModelFile.read(exported).about.configurations["dx"].folds
    first, second = folds["fold_0"].start, folds["fold_1"].start
    assert (first.source, first.licence) == ("timm/test_efficientnet.r160_in1k", "apache-2.0")
    assert first.parameters == {"matched": 10, "adapted": 2, "new": 3}
    assert second.source == "a trained model (omnia, fold 1)"
    assert second.started_from is not None
    assert second.started_from.licence == "apache-2.0"


def test_the_card_tells_what_a_reader_needs(exported: Path) -> None:
    card = texts(exported)["MODEL_CARD.md"]
    for expected in (
        "# Dataset001_Tiny: segmentation of block",
        "| 1 | block |",
        "4 annotated cases; median shape 23 x 16 x 19 voxels, median spacing\n1.5 x 1 x 1 mm",
        "each of 4 cases was segmented by a network that was not trained on it",
        "| block | 0.650 (",
        "2.0 (2.0–2.0)",
        "timm/test_efficientnet.r160_in1k | apache-2.0 |",
        "a trained model (omnia, fold 1), which started from timm/test_efficientnet.r160_in1k | apache-2.0 |",
        "autocrossdim predict tiny.acd -i IMAGES -o SEGMENTATIONS",
        "not a medical device",
    ):
        assert expected in card, expected
    assert "not only of those in this file" not in card
    assert "HD95 where found (mm)" in card
    assert "None" not in card


def test_the_card_says_when_the_results_are_of_more_folds(trained: Path, tmp_path: Path) -> None:
    card = texts(export(trained, tmp_path / "one.acd", fold=[1]))["MODEL_CARD.md"]
    assert "not only of those in this file" in card
    assert ModelFile.read(tmp_path / "one.acd").folds == {"dx": ["fold_1"]}


def test_a_model_folder_alone_can_be_exported(
    write_model: Callable[..., Path], make_plan: Callable[..., Any], tmp_path: Path
) -> None:
    file = export(write_model(tmp_path / "model", dims=2), tmp_path / "model.acd")
    about = ModelFile.read(file).about
    assert about.data is None
    assert about.configurations["omnia"].cross_validation is None
    assert "so its accuracy is unknown" in texts(file)["MODEL_CARD.md"]


@pytest.mark.parametrize("name", ["model.zip", "model"])
def test_the_file_is_called_acd(trained: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"must end in \.acd\. Use .*[/\\]model\.acd, for example"):
        export(trained, tmp_path / name)


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="no devices")
def test_a_device_is_named_as_such(trained: Path) -> None:
    with pytest.raises(UserError, match="/dev/null: is a device, pipe or socket"):
        export(trained, "/dev/null")


def test_an_exported_file_is_not_exported_again(exported: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"tiny\.acd: is already exported"):
        export(exported, tmp_path / "again.acd")


def test_an_unfinished_fold_is_refused_and_nothing_written(copied: Path, tmp_path: Path) -> None:
    latest = copied / "models" / "dx" / "fold_1" / "checkpoint_latest"
    change(latest, run=RunState(epoch=2, step=8))
    with pytest.raises(UserError, match="fold_1.* stopped after epoch 2"):
        export(copied, tmp_path / "tiny.acd")
    assert not (tmp_path / "tiny.acd").exists()


def test_folds_of_different_plans_are_refused(copied: Path, tmp_path: Path, make_plan: Callable[..., Any]) -> None:
    latest = copied / "models" / "dx" / "fold_1" / "checkpoint_latest"
    change(latest, plan=make_plan(patch_size=(8, 8, 8), channel_names=("another",)))
    with pytest.raises(UserError, match="fold_1.* another plan"):
        export(copied, tmp_path / "tiny.acd")


def test_weights_that_are_not_finite_are_refused(copied: Path, tmp_path: Path) -> None:
    latest = copied / "models" / "dx" / "fold_1" / "checkpoint_latest"
    network = Checkpoint.read(latest).network
    network["head.bias"][0] = torch.inf
    change(latest, network=network)
    with pytest.raises(UserError, match=r"fold_1.*head\.bias"):
        export(copied, tmp_path / "tiny.acd")


@pytest.mark.parametrize("content", ["[]", "{}", '{"interval": 1}'])
def test_a_damaged_summary_is_named(copied: Path, tmp_path: Path, content: str) -> None:
    (copied / "models" / "dx" / "summary.json").write_text(content)
    with pytest.raises(UserError, match=r"summary\.json: damaged"):
        export(copied, tmp_path / "tiny.acd")


def test_a_file_keeps_whether_channels_may_be_missing(copied: Path, tmp_path: Path) -> None:
    folds = sorted(copied.glob("models/*/fold_*/checkpoint_latest"))
    for share in (0.0, 0.2):
        for fold in folds:
            change(fold, settings={**Checkpoint.read(fold).settings, "channel_dropout": share})
        export(copied.name, tmp_path / f"{share}.acd", work=copied.parent)
        (found, *_), *_ = ModelFile.read(tmp_path / f"{share}.acd").checkpoints()
        assert found[1].channel_dropout == share


def test_unlabelled_scans_are_stated_and_not_named(copied: Path, tmp_path: Path) -> None:
    fold = copied / "models" / "dx" / "fold_0" / "checkpoint_latest"
    split = Checkpoint.read(fold).split
    change(fold, split={**split, "unlabelled": ["Jane_Doe_1", "Jane_Doe_2", "Jane_Doe_3"]})
    content = texts(export(copied.name, tmp_path / "taught.acd", work=copied.parent))
    assert "| dx fold_0 | 2 and 3 unlabelled | 2 |" in content["MODEL_CARD.md"]
    assert "| dx fold_1 | 2 | 2 |" in content["MODEL_CARD.md"]
    assert content["about.json"].count("unlabelled_scans") == 1
    assert not any("Jane" in text for text in content.values())


def test_codes_of_labels_travel_with_the_file(copied: Path, tmp_path: Path) -> None:
    codes = {"block": {"value": "10200004", "meaning": "Liver"}}
    write_json(copied / "dataset.json", {"labels": {"background": 0, "block": 1}, "codes": codes})
    found = ModelFile.read(export(copied, tmp_path / "tiny.acd")).codes
    assert found["block"].meaning == "Liver"
    assert open_model(copied).codes == open_model(copied / "models" / "dx").codes == found
    write_json(copied / "dataset.json", {"labels": {"background": 0, "block": 1}, "codes": {"nothing": {}}})
    with pytest.raises(UserError, match=r"dataset\.json: codes is malformed"):
        Predictor.load(copied)
