import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from autocrossdim.models.model_file import ModelFile
from autocrossdim.models.pack import pack
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.system.errors import UserError
from trainers.start import starting_network


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, write_model: Callable[..., Path]) -> ModelFile:
    """Return an exported file with fold 0 of Dataset001_Tiny."""
    folder = tmp_path_factory.mktemp("start")
    return pack(write_model(folder / "model", dims=2), folder / "tiny.acd")


@pytest.mark.parametrize(
    ("dataset", "fold"), [("Dataset001_Tiny", 0), ("Dataset002_Other", 0), ("Dataset002_Other", 3)]
)
def test_training_starts_from_an_exported_file(
    exported: ModelFile,
    tmp_path: Path,
    make_plan: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    dataset: str,
    fold: int,
) -> None:
    plan = make_plan(dims=2)
    folder = Workspace(tmp_path / dataset).fold("omnia", fold)
    network, provenance = starting_network(plan.network_plan(plan.configuration()), str(exported.path), folder)
    assert ("a dataset of the same name" in capsys.readouterr().err) == (dataset == "Dataset001_Tiny")
    (((_, checkpoint),),) = exported.checkpoints()
    for name, value in network.state_dict().items():
        assert torch.equal(value, checkpoint.network[name]), name
    assert provenance["model"] == str(exported.path)
    assert provenance["started_from"]["source"] == "random"
    assert provenance["report"]["parameters"]["new"] == 0


def test_training_starts_from_a_copy_of_a_repository_of_the_hub(
    exported: ModelFile, tmp_path: Path, make_plan: Callable[..., Any]
) -> None:
    repository, plan = tmp_path / "copy", make_plan(dims=2)
    repository.mkdir()
    shutil.copyfile(exported.path, repository / "model.acd")
    folder = Workspace(tmp_path / "Dataset002_Other").fold("omnia", 3)
    _, provenance = starting_network(plan.network_plan(plan.configuration()), str(repository), folder)
    assert (provenance["model"], provenance["report"]["parameters"]["new"]) == (str(repository), 0)


def test_a_fold_never_starts_from_one_that_was_trained_on_its_validation_cases(
    exported: ModelFile, tmp_path: Path, make_plan: Callable[..., Any]
) -> None:
    plan = make_plan(dims=2)
    folder = Workspace(tmp_path / "Dataset001_Tiny").fold("omnia", 1)
    with pytest.raises(UserError, match=r"--fold 1: .*tiny\.acd contains fold_0"):
        starting_network(plan.network_plan(plan.configuration()), str(exported.path), folder)


@pytest.mark.parametrize(("dataset", "cases"), [("Dataset001_Tiny", ["a"]), ("Dataset002_Other", [])])
def test_scans_that_a_model_learned_from_are_recognised_in_other_datasets_by_their_content_only(
    tmp_path: Path, write_model: Callable[..., Path], make_plan: Callable[..., Any], dataset: str, cases: list[str]
) -> None:
    plan = make_plan(dims=2)
    file = FoldFolder(write_model(tmp_path / "model", dims=2) / "fold_0").latest
    replace(Checkpoint.read(file), split={"train": ["a"], "val": []}, sources={"a": "digest"}).write(file)
    folder = Workspace(tmp_path / dataset).fold("omnia", 0)
    _, provenance = starting_network(plan.network_plan(plan.configuration()), str(file), folder)
    assert provenance["cases"] == cases
    assert provenance["contents"] == {"digest": "a"}
