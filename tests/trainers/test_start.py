from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autocrossdim.models.model_file import ModelFile
from autocrossdim.models.pack import pack
from autocrossdim.records.workspace import Workspace
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


def test_a_fold_never_starts_from_one_that_was_trained_on_its_validation_cases(
    exported: ModelFile, tmp_path: Path, make_plan: Callable[..., Any]
) -> None:
    plan = make_plan(dims=2)
    folder = Workspace(tmp_path / "Dataset001_Tiny").fold("omnia", 1)
    with pytest.raises(UserError, match=r"--fold 1: .*tiny\.acd contains fold_0"):
        starting_network(plan.network_plan(plan.configuration()), str(exported.path), folder)
