"""Studies from the command line, with the smallest network and a few steps."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import autocrossdim
from autocrossdim.commands.study import _check
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset
from autocrossdim.records.plan import Plan
from autocrossdim.records.study import StudyResults
from autocrossdim.studies.catalogue import STUDIES
from autocrossdim.system.errors import UserError

QUICK = ["--encoder", "test_efficientnet", "--memory", "2", "--epochs", "1", "--weights", "random", "--cases", "2"]
QUICK += ["--set", "steps_per_epoch=2", "--set", "workers=0", "--seeds", "1", "--processes", "1"]
QUICK += ["--patch-size", "16,16,16", "--batch-size", "2"]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "Dataset901_Nodules"
    labels = {"background": 0, "organ": 1, "nodule": 2}
    write_dataset(folder, lambda random: nodules(random, (20, 28, 24)), labels, ISOTROPIC_SPACING, training=5, test=0)
    return folder


def test_a_study_resumes_run_by_run_and_averages_its_networks(
    volumes: Path, tmp_path: Path, succeed: Callable[..., str]
) -> None:
    words = ["study", "2d3d", volumes, "--work", tmp_path, *QUICK]
    arms = ["--arm", "Omnia-Net", "--arm", "DX-Net"]
    said = succeed(*words, *arms[:2])
    assert "1 run of 1 epoch each: 1 arm, 2 training cases, 1 seed; tested on 2 other cases" in said
    folder = tmp_path / volumes.name / "studies" / "2d3d"
    (record,) = folder.glob("runs/Omnia_Net_*/2_cases_seed_0/record.json")
    before = record.stat().st_mtime_ns

    said = succeed(*words, *arms, "--arm", "Omnia-Net + DX-Net")
    assert "1 of 3 runs exist already" in said
    assert record.stat().st_mtime_ns == before
    results = StudyResults.read(folder / "results.json")
    assert results.conclusion in said
    assert [run.configuration for run in results.runs] == ["omnia", "dx", "omnia + dx"]
    omnia, dx, both = results.runs
    assert omnia.cases.keys() == dx.cases.keys() == both.cases.keys()
    assert not set(omnia.cases) & set(omnia.options["training cases"])
    assert both.training_seconds == omnia.training_seconds + dx.training_seconds > 0
    assert len(dx.curve) == 1
    assert {file.name for file in folder.iterdir()} >= {"results.json", "table.md", "figure.png"}
    # Only what is needed later is kept of a run.
    assert {file.name for file in record.parent.iterdir()} == {"options.json", "record.json", "segmented"}


def test_omnia_net_first_shares_the_budget_and_slices_are_averaged_before_training(
    volumes: Path, tmp_path: Path, succeed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(STUDIES, "convergence", replace(STUDIES["convergence"], slicings=(2,)))
    words = [word if word != "1" or QUICK[at - 1] != "--epochs" else "2" for at, word in enumerate(QUICK)]
    words += ["--arm", "Omnia-Net first", "--config", "dx", "--json"]
    said = succeed("study", "convergence", volumes, "--work", tmp_path, *words)
    assert "Nothing to compare with" in said
    printed, _ = json.JSONDecoder().raw_decode(said[said.index("{\n") :])  # messages follow
    (run,) = printed["runs"]
    assert run["steps"] == 2  # of one of the two epochs
    assert run["training_seconds"] == run["curve"][-1]["seconds"]
    assert run["curve"][-1]["dice"] is not None
    assert (run["slicing"], run["anisotropy"]) == (2, 2.0)


def test_mistakes_are_found_before_the_first_run(volumes: Path, tmp_path: Path) -> None:
    options = {"work": tmp_path, "encoder": "test_efficientnet", "memory": 2, "processes": 1}
    with pytest.raises(UserError, match="no study 'anything'"):
        autocrossdim.study("anything", volumes, **options)
    with pytest.raises(UserError, match="Unknown setting 'epoch'"):
        autocrossdim.study("2d3d", volumes, set={"epoch": 3}, **options)
    with pytest.raises(UserError, match="--config: the study '2d3d' chooses the value itself"):
        autocrossdim.study("2d3d", volumes, config="dx", **options)
    with pytest.raises(TypeError, match="no parameter 'trial'"):
        autocrossdim.study("weights", volumes, trial=False)
    assert not list(tmp_path.rglob("options.json"))


def test_what_a_run_cannot_be_trained_with_is_refused(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan()
    second = plan.configuration().model_copy(update={"name": "dx_cascade", "previous_stage": "dx_lowres"})
    with pytest.raises(UserError, match="--config dx_cascade: it needs the segmentations of dx_lowres"):
        _check(STUDIES["weights"], plan, second, {})
    with pytest.raises(UserError, match="--set unlabelled: a study trains on annotated cases only"):
        _check(STUDIES["weights"], plan, plan.configuration(), {"unlabelled": 1})


def test_a_study_of_3d_networks_refuses_2d_images(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    pictures = make_dataset(ending=".png", shape=(40, 40))
    with pytest.raises(UserError, match="contains 2D images"):
        autocrossdim.study("inflation", pictures, work=tmp_path / "work", encoder="test_efficientnet", processes=1)
