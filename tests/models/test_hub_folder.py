import dataclasses
import json
import os
import platform
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

import autocrossdim
from autocrossdim.models.hub_folder import repository_to_write, write_hub_files
from autocrossdim.models.model_file import ModelFile
from autocrossdim.models.source import open_model
from autocrossdim.records.best import Best
from autocrossdim.system import lock
from autocrossdim.system.errors import UserError

CASES = ("mueller_anna", "schmidt_jan", "weber_eva", "koch_ida")


@pytest.fixture(scope="module")
def repository(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "block"
    assert autocrossdim.export(trained, hub=folder, licence="cc-by-4.0") == folder / "model.acd"
    return folder


def test_the_directory_has_what_a_model_repository_needs(repository: Path, exported: Path) -> None:
    assert {file.name for file in repository.iterdir()} == {"README.md", "config.json", "model.acd"}
    folds = ModelFile.read(exported).folds
    assert ModelFile.read(repository / "model.acd").folds == folds
    config = json.loads((repository / "config.json").read_text(encoding="utf-8"))
    assert config["labels"] == {"background": [0], "block": [1]}
    assert config["configurations"]["dx"]["folds"] == folds["dx"]
    assert (config["model_file"], config["channel_names"]) == ("model.acd", ["phantom"])


def test_the_hub_can_read_the_model_card(repository: Path) -> None:
    card = ModelCard.load(repository / "README.md")
    assert (card.data.license, card.data.library_name) == ("cc-by-4.0", "autocrossdim")
    assert card.data.pipeline_tag == "image-segmentation"
    assert {"medical-imaging", "3d"} <= set(card.data.tags)
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("Dataset001_Tiny", "dice", 0.65)
    assert "autocrossdim predict hf://OWNER/NAME -i IMAGES -o SEGMENTATIONS" in card.text
    assert "| all labels | **0.650" in card.text


def test_the_card_says_how_far_probabilities_can_be_trusted(exported: Path, tmp_path: Path) -> None:
    file = ModelFile.read(exported)
    best = Best(
        dataset=file.plan.dataset,
        configurations=("dx",),
        folds=(0, 1),
        dice_postprocessed=0.7,
        contenders=(),
        reasons=(),
        plan_digest="",
        checkpoints={},
    )
    write_hub_files(dataclasses.replace(file, best=best), tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "`dx` with the post-processing chosen by `find_best`: mean Dice 0.700" in text
    assert best.calibration.sentence in text


def test_no_patient_and_no_directory_is_named(repository: Path) -> None:
    text = "".join((repository / name).read_text(encoding="utf-8") for name in ("README.md", "config.json"))
    for private in (*CASES, "doctor_x", "/home", str(repository.parent)):
        assert private not in text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Give either -o FILE.acd, or --hub FOLDER"),
        ({"output": "a.acd", "hub": "b"}, "Give either -o FILE.acd, or --hub FOLDER"),
        ({"output": "a.acd", "licence": "cc-by-4.0"}, "--licence is for the repository on the hub. Add --hub FOLDER"),
        ({"hub": "b", "licence": "CC BY 4.0"}, "--licence CC BY 4.0: use an identifier of the hub, such as apache-2.0"),
    ],
)
def test_what_is_to_be_written_must_be_clear(trained: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        autocrossdim.export(trained, **options)


def test_an_edited_model_card_is_kept_and_the_directory_can_be_opened(
    trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "block"
    autocrossdim.export(trained, hub=folder)
    card = folder / "README.md"
    first = card.read_text(encoding="utf-8")
    card.write_text(first + "Not for children.\n", encoding="utf-8")
    autocrossdim.export(trained, hub=folder)
    assert "README.md: the former version is kept as README.former.md" in capfd.readouterr().err
    assert (folder / "README.former.md").read_text(encoding="utf-8").endswith("Not for children.\n")
    assert card.read_text(encoding="utf-8") == first
    card.write_text("Edited again.", encoding="utf-8")
    autocrossdim.export(trained, hub=folder)
    assert (folder / "README.former.md").read_text(encoding="utf-8").endswith("Not for children.\n")
    assert (folder / "README.former2.md").read_text(encoding="utf-8") == "Edited again."
    assert isinstance(open_model(folder), ModelFile)
    with pytest.raises(UserError, match="is already exported"):
        autocrossdim.export(folder, tmp_path / "again.acd")
    (folder / "dataset.json").write_text("{}", encoding="utf-8")  # a dataset, whose model is in the work directory
    assert not isinstance(open_model(folder), ModelFile)


def test_a_readme_of_something_else_is_not_replaced(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("my project", encoding="utf-8")
    with pytest.raises(UserError, match=r"contains README\.md that `autocrossdim export` did not write"):
        autocrossdim.export(trained, hub=tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["README.md"]
    (tmp_path / ".git").mkdir()  # the clone of a new repository, for which the hub wrote a README.md
    autocrossdim.export(trained, hub=tmp_path)
    assert (tmp_path / "README.former.md").read_text(encoding="utf-8") == "my project"


def test_a_repository_that_another_process_writes_is_refused(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "SECONDS_TO_END", 0.0)
    folder = tmp_path / "new" / "hub"
    with (
        repository_to_write(folder),
        pytest.raises(UserError, match=rf"hub: process {os.getpid()} on {platform.node()} is writing to it"),
    ):
        autocrossdim.export(trained, hub=folder)
    assert not (tmp_path / "new").exists()
    autocrossdim.export(trained, hub=folder)
    assert {file.name for file in folder.iterdir()} == {"README.md", "config.json", "model.acd"}
    assert list(folder.parent.iterdir()) == [folder]  # nor is anything left that would be uploaded
