"""Studies from the command line, with the smallest network and a few steps."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import autocrossdim
from autocrossdim.commands.study import _check
from autocrossdim.commands.study_run import Performer, held_out_folder
from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset
from autocrossdim.records.plan import Plan
from autocrossdim.records.study import CaseMetrics, StudyResults, StudyRun
from autocrossdim.studies.catalogue import STUDIES
from autocrossdim.studies.datasets import write_test_cases
from autocrossdim.studies.design import Arm, Job
from autocrossdim.system import lock
from autocrossdim.system.errors import UserError
from autocrossdim.system.lock import LOCK, locked

QUICK = ["--encoder", "test_efficientnet", "--memory", "2", "--epochs", "1", "--weights", "random", "--cases", "2"]
QUICK += ["--set", "steps_per_epoch=2", "--set", "workers=0", "--seeds", "1", "--processes", "1"]
QUICK += ["--patch-size", "16,16,16", "--batch-size", "2"]


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "Dataset901_Nodules"
    labels = {"background": 0, "organ": 1, "nodule": 2}
    write_dataset(folder, lambda random: nodules(random, (20, 28, 24)), labels, ISOTROPIC_SPACING, training=5, test=0)
    return folder


@pytest.mark.slow
def test_a_study_resumes_run_by_run_and_averages_its_networks(
    volumes: Path, tmp_path: Path, succeed: Callable[..., str]
) -> None:
    words = ["study", "2d3d", volumes, "--work", tmp_path, *QUICK]
    arms = ["--arm", "Omnia-Net", "--arm", "DX-Net"]
    said = succeed(*words, *arms[:2])
    assert "1 run of 1 epoch each: 1 arm, 2 training cases, 1 seed; tested on 2 other cases" in said
    unwanted = ("Also train a 3D network", "Images are not compared", "2 folds", "only 2 training cases")
    assert not any(advice in said for advice in unwanted)
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


@pytest.fixture
def quick_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Titles of the runs that were carried out, in which nothing is trained."""
    titles: list[str] = []

    def perform(_: Performer, job: Job, place: Path) -> StudyRun:
        titles.append(job.title)
        (place / "segmented").mkdir(parents=True)
        case = CaseMetrics(group="g", dice=0.5, hd95=1.0, labels={})
        return StudyRun(
            **{"arm": job.arm.name, "size": len(job.training), "seed": job.seed, "options": job.options},
            **{"anisotropy": 1.0, "configuration": "dx", "cases": dict.fromkeys(job.test, case)},
            **{"training_seconds": 1.0, "prediction_seconds": 1.0, "memory_bytes": 1, "steps": 1},
        )

    monkeypatch.setattr(Performer, "__call__", perform)
    return titles


THREE = ["--arm", "Omnia-Net", "--arm", "DX-Net", "--arm", "Omnia-Net + DX-Net"]


def test_runs_are_carried_out_side_by_side_and_averaged_at_the_end(
    volumes: Path,
    tmp_path: Path,
    succeed: Callable[..., str],
    command: Callable[..., object],
    quick_runs: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: dict[str, Sequence[str]] = {}

    def run_together(commands: Mapping[str, Sequence[str]], slots: Sequence[object]) -> None:
        assert len(slots) == 2
        started.update(commands)
        for words in list(commands.values())[1:]:  # the first one was killed
            assert command(*words[3:]).returncode == 0

    monkeypatch.setattr("autocrossdim.jobs.local.run_together", run_together)
    words = ["study", "2d3d", volumes, "--work", tmp_path, *QUICK[:-4], *THREE, "--seeds", "2", "--max-time", "2m"]
    said = succeed(*words, "--patch-size", "16,16", "--parallel", "2")
    trained = ["Omnia-Net", "DX-Net"]
    assert set(started) == {f"{arm}, 2 cases, seed {seed}" for arm in trained for seed in (0, 1)}
    assert sorted(quick_runs[:3]) == sorted(list(started)[1:])
    # What is left, and the averages, are run by the command itself.
    assert quick_runs[3] == next(iter(started))
    assert [title.partition(",")[0] for title in quick_runs[4:]] == ["Omnia-Net + DX-Net"] * 2
    assert "can be drawn from fewer than two held-out patients" in " ".join(said.split())


def test_weights_that_do_not_fit_fail_before_the_first_run(
    volumes: Path, tmp_path: Path, command: Callable[..., object], quick_runs: list[str]
) -> None:
    """The arm "random" comes first, and its runs may take hours."""
    torch.save({"stem.weight": torch.zeros(1)}, tmp_path / "other.pth")
    words = ["study", "weights", volumes, "--work", tmp_path, *QUICK, "--weights", tmp_path / "other.pth"]
    assert "other.pth: not weights of test_efficientnet" in command(*words).stderr
    assert quick_runs == []
    assert command(*words, "--arm", "random").returncode == 0
    assert len(quick_runs) == 1


def test_runs_are_not_discarded_for_weights_that_do_not_fit(
    volumes: Path, tmp_path: Path, command: Callable[..., object], quick_runs: list[str]
) -> None:
    torch.save({"stem.weight": torch.zeros(1)}, tmp_path / "other.pth")
    words = ["study", "2d3d", volumes, "--work", tmp_path, *QUICK, "--arm", "DX-Net", "--arm", "Omnia-Net"]
    assert command(*words).returncode == 0
    other = [tmp_path / "other.pth" if word == "random" else word for word in words]
    assert "other.pth: not weights of test_efficientnet" in command(*other, "--overwrite").stderr
    assert command(*words).returncode == 0
    assert len(quick_runs) == 2


def test_other_held_out_cases_leave_those_of_a_running_study_alone(
    volumes: Path, tmp_path: Path, command: Callable[..., object], quick_runs: list[str]
) -> None:
    words = ["study", "2d3d", volumes, "--work", tmp_path, *QUICK, "--arm", "DX-Net"]
    assert command(*words).returncode == 0
    held_out = tmp_path / volumes.name / "studies" / "2d3d" / "test"
    linked = sorted(held_out.rglob("*.nii.gz"))
    assert "made with other options" in command(*words, "--test-cases", "1").stderr
    assert linked
    assert set(linked) <= set(held_out.rglob("*.nii.gz"))


def test_jobs_share_the_runs_and_the_results_are_written_when_they_have_finished(
    volumes: Path,
    tmp_path: Path,
    command: Callable[..., object],
    quick_runs: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    submitted: dict[str, Sequence[str]] = {}

    def submit(jobs: Mapping[str, object], folder: Path, options: Mapping[str, str]) -> None:
        assert (folder.parent.name, options) == ("2d3d", {"time": "1:00:00"})
        submitted.update({name: job.words for name, job in jobs.items()})

    monkeypatch.setattr("autocrossdim.jobs.slurm.submit", submit)
    words = ["study", "2d3d", volumes, "--work", tmp_path, *QUICK, *THREE]
    said = command(*words, "--slurm", "time=1:00:00").stdout
    assert list(submitted) == ["study 2d3d 0 of 2", "study 2d3d 1 of 2"]
    assert "When all runs are finished, run this command without --slurm and --part to write the results." in said
    assert command(*submitted["study 2d3d 1 of 2"][3:]).returncode == 0
    assert len(quick_runs) == 1
    submitted.clear()
    assert command(*words, "--slurm", "time=1:00:00").returncode == 0  # the other job failed
    assert list(submitted) == ["study 2d3d 0 of 2"]


def test_a_part_waits_while_another_one_plans_and_discards_its_runs_on_request(
    volumes: Path,
    tmp_path: Path,
    quick_runs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    edit_json: Callable[..., None],
) -> None:
    folder = tmp_path / volumes.name / "studies" / "2d3d"
    options = {"work": tmp_path, "encoder": "test_efficientnet", "memory": 2, "processes": 1, "patch_size": "16,16,16"}
    options |= {"cases": 2, "seeds": 1, "arm": ["Omnia-Net", "DX-Net"], "weights": "random"}
    waited: list[str] = []
    folder.mkdir(parents=True)
    with ExitStack() as other_part:
        other_part.enter_context(locked(folder / LOCK, folder))

        def say(message: str) -> None:
            waited.append(message)
            other_part.close()

        monkeypatch.setattr(lock, "SECONDS_TO_END", 0.0)
        monkeypatch.setattr(lock, "say", say)
        assert autocrossdim.study("2d3d", volumes, part="0/2", epochs=1, **options) is None
    assert len(waited) == 1

    autocrossdim.study("2d3d", volumes, part="0/2", epochs=2, overwrite=True, **options)
    assert len(quick_runs) == 2
    (record,) = folder.glob("runs/*/*/record.json")
    assert StudyRun.read(record).options["training settings"]["epochs"] == 2

    changed = tmp_path / "raw" / volumes.name
    shutil.copytree(volumes, changed)
    edit_json(changed, labels={"background": 0, "nodule": 1, "organ": 2})
    with pytest.raises(UserError, match=r"labels changed since the dataset was planned"):
        autocrossdim.study("2d3d", changed, part="0/2", epochs=2, **options)
    autocrossdim.study("2d3d", changed, part="0/2", epochs=2, overwrite=True, **options)
    assert len(quick_runs) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"jobs": 2}, "--jobs is the number of SLURM jobs"),
        ({"slurm": "time=1", "parallel": 2}, "--parallel cannot be combined with --slurm"),
        ({"part": "0/2", "parallel": 2}, "--part cannot be combined"),
        ({"part": "2/2"}, "--part 2/2: use I/N"),
    ],
)
def test_what_shares_the_runs_is_checked_first(tmp_path: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        autocrossdim.study("weights", tmp_path / "none", **options)


@pytest.mark.slow
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


def test_a_run_records_that_only_annotated_slices_count(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    dataset = load_dataset(make_dataset(unannotated_slices="empty"))
    job = Job(arm=Arm("one"), training=("a",), test=("b",), seed=0, slicing=1, plan={}, settings={})
    cases = held_out_folder(tmp_path / "study", 1, job.test)
    write_test_cases(dataset, cases, job.test)
    found = Performer({1: dataset}, tmp_path / "study", "cpu", 1)._evaluated(job, cases / "labels")
    assert found["scope"] == "annotated slices only (8 of 8)"


def test_mistakes_are_found_before_the_first_run(volumes: Path, tmp_path: Path) -> None:
    options = {"work": tmp_path, "encoder": "test_efficientnet", "memory": 2, "processes": 1}
    with pytest.raises(UserError, match="no study 'anything'"):
        autocrossdim.study("anything", volumes, **options)
    with pytest.raises(UserError, match="Unknown setting 'epoch'"):
        autocrossdim.study("2d3d", volumes, set={"epoch": 3}, **options)
    with pytest.raises(UserError, match="--config: the study '2d3d' sets this value itself"):
        autocrossdim.study("2d3d", volumes, config="dx", **options)
    with pytest.raises(TypeError, match="no parameter 'trial'"):
        autocrossdim.study("weights", volumes, trial=False)
    assert not list(tmp_path.rglob("options.json"))


def test_what_a_run_cannot_be_trained_with_is_refused(make_plan: Callable[..., Plan]) -> None:
    plan = make_plan()
    second = plan.configuration().model_copy(update={"name": "dx_cascade", "previous_stage": "dx_lowres"})
    with pytest.raises(UserError, match="--config dx_cascade: it needs the segmentations of dx_lowres"):
        _check(STUDIES["weights"], plan, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 10**7}, "epochs"),
        ({"set": {"epoch": 3}}, "Unknown setting 'epoch'"),
        ({"set": {"unlabelled": 1}}, "--set unlabelled: a study trains on annotated cases only"),
    ],
)
def test_settings_are_checked_before_planning(
    volumes: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        autocrossdim.study("2d3d", volumes, work=tmp_path, encoder="test_efficientnet", processes=1, **options)
    assert not list(tmp_path.rglob("*.json"))


def test_a_study_of_3d_networks_refuses_2d_images(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    pictures = make_dataset(ending=".png", shape=(40, 40))
    with pytest.raises(UserError, match="contains 2D images"):
        autocrossdim.study("inflation", pictures, work=tmp_path / "work", encoder="test_efficientnet", processes=1)
