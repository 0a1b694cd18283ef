"""`distil`: a student of the ensemble that find_best chose, on a small generated dataset."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autocrossdim
from autocrossdim.commands.distil import present as show
from autocrossdim.commands.find_best import present
from autocrossdim.commands.plugins import FoldTask
from autocrossdim.data.phantoms import ANISOTROPIC_SPACING, chambers, write_dataset
from autocrossdim.jobs.slurm import Job
from autocrossdim.preprocessing.arrays import open_array
from autocrossdim.preprocessing.soft_labels import CERTAIN
from autocrossdim.records.best import Best
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.student import Student, students
from autocrossdim.records.workspace import Workspace
from autocrossdim.selection import teachers
from autocrossdim.selection.choose import Choice
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json
from trainers import loop
from trainers.trainer import DefaultTrainer

SETTINGS = {"steps_per_epoch": 1, "validation_batches": 1, "workers": 0}
QUICK: dict[str, Any] = {"epochs": 1, "weights": "random", "device": "cpu", "set": SETTINGS}
SCANS = ("case_04", "case_05")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a dataset with two unlabelled scans, one of them of a training patient, and an ensemble of two folds."""
    folder = tmp_path_factory.mktemp("distil")
    raw, work = folder / "Dataset902_Chambers", folder / "work"
    labels = {"background": 0, "chamber": 1, "wall": 2}
    write_dataset(raw, lambda random: chambers(random, (4, 32, 32)), labels, ANISOTROPIC_SPACING, training=4, test=2)
    shutil.copytree(raw / "imagesTs", raw / "imagesUn")
    cases = [f"case_{number:02d}" for number in range(4)]
    write_json(
        raw / "splits_final.json", [{"train": cases[:2], "val": cases[2:]}, {"train": cases[2:], "val": cases[:2]}]
    )
    content = read_json(raw / "dataset.json")
    write_json(raw / "dataset.json", {**content, "groups": {"case_03": "patient", "case_04": "patient"}})
    autocrossdim.plan_and_preprocess(raw, work=work, memory=2, trial=False, encoder="test_efficientnet")
    with pytest.raises(UserError, match=r"no ensemble to learn from\. Run `autocrossdim find_best"):
        autocrossdim.distil(raw, work=work)
    autocrossdim.train(raw, work=work, **QUICK)
    autocrossdim.find_best(raw, work=work, device="cpu")
    return raw, work


@pytest.fixture(scope="module")
def student(taught: tuple[Path, Path]) -> Student:
    raw, work = taught
    return autocrossdim.distil(raw, work=work, **QUICK)


def test_a_student_is_compared_with_its_teachers_on_held_out_cases(taught: tuple[Path, Path], student: Student) -> None:
    raw, work = taught
    workspace = Workspace.of(raw.name, work)
    assert (student.name, student.teachers, student.unlabelled) == ("omnia_distilled", ("omnia",), 2)
    assert student.saving == 2 * 4  # two folds and four mirrorings against one network without any
    assert student.held_out is not None
    assert student.held_out.n_cases == 4
    assert student.held_out.difference == pytest.approx(student.held_out.dice - student.held_out.teachers_dice)
    assert Student.read(workspace.model("omnia_distilled") / "student.json") == student
    assert student.sentence in autocrossdim.report(raw, work=work).read_text(encoding="utf-8")


@pytest.mark.parametrize(("difference", "is_advised"), [(-0.3, False), (-0.011, False), (-0.005, True), (0.02, True)])
def test_the_next_command_uses_the_student_only_if_it_is_about_as_good(
    taught: tuple[Path, Path], student: Student, difference: float, is_advised: bool
) -> None:
    raw, work = taught
    assert student.held_out is not None
    held_out = student.held_out.model_copy(update={"difference": difference})
    worse = student.model_copy(update={"held_out": held_out})
    *said, last = show(worse, dataset=str(raw), work=work, config=None, **dict.fromkeys(QUICK))
    command = f"Next: autocrossdim predict {raw} --work {work} -i IMAGES -o SEGMENTED"
    assert last == (f"{command} --config omnia_distilled" if is_advised else command)
    assert ("Keep using the ensemble" in str(said[-1])) is not is_advised


def test_find_best_shows_the_students_of_the_ensemble_that_it_chose(
    taught: tuple[Path, Path], student: Student
) -> None:
    raw, work = taught
    best = Best.read(Workspace.of(raw.name, work).best)
    assert student.sentence in list(present(best, dataset=str(raw), work=work))
    calibration = best.calibration.model_copy(update={"temperature": 2 * best.calibration.temperature})
    other = best.model_copy(update={"calibration": calibration})
    assert student.sentence not in list(present(other, dataset=str(raw), work=work))


def test_a_damaged_record_of_a_student_does_not_make_find_best_fail(
    taught: tuple[Path, Path], student: Student, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, work = taught
    workspace = Workspace.of(raw.name, work)
    record = workspace.model(student.name) / "student.json"
    complete = record.read_text()
    try:
        record.write_text("{")
        shown = list(present(Best.read(workspace.best), dataset=str(raw), work=work))
    finally:
        record.write_text(complete)
    assert "Next:" in shown[-1]
    assert str(record) in capsys.readouterr().err


def test_no_fold_learns_about_the_patients_that_it_validates(taught: tuple[Path, Path], student: Student) -> None:
    raw, work = taught
    workspace = Workspace.of(raw.name, work)
    first, second, every = (Checkpoint.read(workspace.fold(student.name, fold).latest) for fold in (0, 1, "all"))
    assert first.split["unlabelled"] == ["case_05"]  # case_04 is of a patient whom fold 0 validates
    assert second.split["unlabelled"] == every.split["unlabelled"] == list(SCANS)
    labelled = [file.name[:7] for file in sorted((workspace.preprocessed(student.name) / "fold_0").glob("*.b2nd"))]
    assert labelled == ["case_00", "case_01", "case_05"]
    assert first.provenance["teachers"] != second.provenance["teachers"] != every.provenance["teachers"]


def test_soft_labels_are_the_probabilities_of_the_teachers(
    taught: tuple[Path, Path], student: Student, tmp_path: Path
) -> None:
    raw, work = taught
    autocrossdim.predict(raw, raw / "imagesUn", tmp_path / "all", work=work, device="cpu", probabilities=True)
    (file,) = (Workspace.of(raw.name, work).preprocessed(student.name) / "fold_all").glob("case_05_*.b2nd")
    with np.load(tmp_path / "all" / "case_05.npz") as found:
        probabilities = found["probabilities"]
    np.testing.assert_allclose(open_array(file)[:] / CERTAIN, probabilities[1:], atol=0.003)


@pytest.mark.slow
def test_a_2d_student_learns_what_2d_and_3d_teachers_say_together(
    taught: tuple[Path, Path], tmp_path: Path, succeed: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, work = taught[0], tmp_path / "work"
    shutil.copytree(taught[1], work, ignore=shutil.ignore_patterns("omnia_distilled"))  # a student of other teachers
    autocrossdim.train(raw, work=work, config="dx", **{**QUICK, "set": {**SETTINGS, "slices_first": False}})
    # After one step, either network may be the better one.
    monkeypatch.setattr("autocrossdim.selection.find_best.choose", lambda *_: Choice("omnia + dx", ["For this test."]))
    succeed("find_best", raw, "--work", work, "--device", "cpu")
    quick = ["--epochs", 1, "--weights", "random", "--device", "cpu"]
    quick += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    said = succeed("distil", raw, "--work", work, "--fold", 0, *quick)
    assert "omnia_distilled: one network that learned from omnia + dx" in " ".join(said.split())
    assert f"Next: autocrossdim distil {raw} --work {tmp_path / 'work'} --epochs 1" in " ".join(said.split())

    spoken = {}
    for config in (["omnia"], ["dx"], ["omnia", "dx"]):
        predictor = autocrossdim.Predictor.load(work / raw.name, config=config, fold=0, device="cpu")
        spoken["+".join(config)] = predictor(raw / "imagesUn" / "case_05_0000.nii.gz", probabilities=True).probabilities
    (file,) = (Workspace.of(raw.name, work).preprocessed("omnia_distilled") / "fold_0").glob("case_05_*.b2nd")
    learned = open_array(file)[:] / CERTAIN
    np.testing.assert_allclose(learned, spoken["omnia+dx"][1:], atol=0.003)
    for alone in ("omnia", "dx"):
        assert np.abs(learned - spoken[alone][1:]).mean() > 0.003, alone


def test_predict_uses_the_student_of_all_cases_without_mirroring_and_export_packs_it(
    taught: tuple[Path, Path], student: Student, tmp_path: Path
) -> None:
    raw, work = taught
    exported = autocrossdim.export(raw, tmp_path / "student.acd", work=work, config=student.name)
    for model, options in ((raw, {"work": work, "config": student.name}), (exported, {})):
        predictor = autocrossdim.Predictor.load(model, device="cpu", **options)
        (loaded,) = predictor.models
        assert loaded.folds == ["all"]
        assert loaded.window(mirroring=True).mirror_axes == ()
    assert autocrossdim.predict(exported, raw / "imagesTs", tmp_path / "out", device="cpu")


def test_a_complete_student_is_skipped_and_other_teachers_are_an_error(
    taught: tuple[Path, Path], student: Student, tmp_path: Path, succeed: Callable[..., str]
) -> None:
    raw, work = taught
    quick = ["--epochs", 1, "--weights", "random", "--device", "cpu"]
    quick += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    printed = succeed("distil", raw, "--work", work, *quick)
    assert printed.count("already trained") == 3
    assert "--config omnia_distilled" in printed
    copy = tmp_path / "work"
    shutil.copytree(work, copy)
    autocrossdim.train(raw, work=copy, fold=0, restart=True, **{**QUICK, "set": {**SETTINGS, "seed": 1}})
    with pytest.raises(UserError, match=r"fold_0.* was trained further or again .* Run `autocrossdim find_best"):
        autocrossdim.distil(raw, work=copy, **QUICK)
    workspace = Workspace.of(raw.name, copy)
    assert students(workspace, Best.read(workspace.best))
    autocrossdim.find_best(raw, work=copy, device="cpu")
    assert not students(workspace, Best.read(workspace.best))  # the report does not compare them with other teachers
    before = sorted(workspace.preprocessed(student.name).glob("fold_0/*"))
    with pytest.raises(UserError, match=r"learned from other teachers .* Start over with --restart"):
        autocrossdim.distil(raw, work=copy, fold=0, **QUICK)
    assert sorted(workspace.preprocessed(student.name).glob("fold_0/*")) == before  # refused before teachers predict


def test_a_student_of_other_scans_is_not_compared(taught: tuple[Path, Path], student: Student, tmp_path: Path) -> None:
    raw, work = taught
    shutil.copytree(work, tmp_path / "work")
    kept = autocrossdim.distil(raw, work=tmp_path / "work", **{**QUICK, "set": {**SETTINGS, "unlabelled": "off"}})
    assert kept.unlabelled == 2  # it is not trained again
    assert kept.held_out is None
    assert "No comparison" in kept.sentence


def test_a_student_of_earlier_images_of_the_scans_is_not_compared(
    taught: tuple[Path, Path], student: Student, tmp_path: Path
) -> None:
    raw, work = (Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in taught)
    first, second = sorted((raw / "imagesUn").iterdir())
    shutil.copy(second, first)
    kept = autocrossdim.distil(raw, work=work, **QUICK)
    assert kept.held_out is None
    assert "No comparison" in kept.sentence


def test_cases_added_since_find_best_are_named_before_anything_is_trained(
    taught: tuple[Path, Path], tmp_path: Path
) -> None:
    raw, work = taught
    shutil.copytree(work, tmp_path / "work")
    summary = Workspace.of(raw.name, tmp_path / "work").summary("omnia")
    content = read_json(summary)
    write_json(summary, {**content, "metric_per_case": content["metric_per_case"][1:]})
    with pytest.raises(UserError, match=r"cases have changed since `find_best` \(case_00\)"):
        autocrossdim.distil(raw, work=tmp_path / "work", **QUICK)


def test_an_interrupted_student_ends_with_the_same_weights(
    taught: tuple[Path, Path], student: Student, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, work = taught
    options = {**QUICK, "epochs": 2, "config": "omnia", "fold": "all", "restart": True}
    for name in ("undisturbed", "interrupted"):
        shutil.copytree(work, tmp_path / name)
    autocrossdim.distil(raw, work=tmp_path / "undisturbed", **options)
    write = loop._write_checkpoint

    def power_cut(*arguments: Any, **named: Any) -> None:
        write(*arguments, **named)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "_write_checkpoint", power_cut)
        autocrossdim.distil(raw, work=tmp_path / "interrupted", **options)
    autocrossdim.distil(raw, work=tmp_path / "interrupted", **{**options, "restart": False})
    expected, found = (
        Checkpoint.read(Workspace.of(raw.name, tmp_path / name).fold(student.name, "all").latest)
        for name in ("undisturbed", "interrupted")
    )
    assert expected.run.step == found.run.step == 2
    for key, tensor in expected.network.items():
        assert torch.equal(tensor, found.network[key]), key


def test_folds_are_distilled_side_by_side_or_as_jobs(
    taught: tuple[Path, Path],
    student: Student,
    command: Callable[..., Any],
    succeed: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    raw, work = taught
    started: dict[str, Sequence[str]] = {}

    def submit(jobs: Mapping[str, Job], folder: Path, options: Mapping[str, str]) -> None:
        assert (folder.parent.name, options) == (raw.name, {"time": "1:00:00"})
        started.update({name: job.words for name, job in jobs.items()})

    def run_together(commands: Mapping[str, Sequence[str]], slots: Sequence[object]) -> None:
        assert len(slots) == 2
        started.update(commands)

    monkeypatch.setattr("autocrossdim.jobs.slurm.submit", submit)
    monkeypatch.setattr("autocrossdim.jobs.local.run_together", run_together)
    words = ["distil", raw, "--work", work, "--epochs", 1, "--weights", "random", "--device", "cpu"]
    words += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    assert "this command without --slurm writes the comparison" in succeed(*words, "--slurm", "time=1:00:00")
    assert list(started) == [f"omnia_distilled fold {fold}" for fold in (0, 1, "all")]
    # Each process has the same options as this one: it finds that its fold is complete.
    assert "already trained" in succeed(*started["omnia_distilled fold 1"][3:])
    started.clear()
    assert student.sentence in succeed(*words, "--parallel", 2).replace("\n", " ")
    assert list(started) == ["fold 0", "fold 1", "fold all"]
    refused = command(*words, "--parallel", 2, "--slurm", "time=1:00:00")
    assert "--parallel cannot be combined with --slurm" in refused.stderr


def test_a_student_is_not_trained_by_train(taught: tuple[Path, Path]) -> None:
    raw, work = taught
    with pytest.raises(UserError, match=r"omnia_distilled: a distilled network\. Train it with `autocrossdim distil`"):
        autocrossdim.train(raw, work=work, config="omnia_distilled")


@pytest.mark.parametrize(("value", "number"), [("off", 0), (0, 0), ("yes", 1)])
def test_unlabelled_scans_are_left_out_by_a_number_or_a_word(
    taught: tuple[Path, Path], value: Any, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, work = taught
    tasks: list[FoldTask] = []
    monkeypatch.setattr(teachers, "compare_with_teachers", lambda *_, **__: None)
    monkeypatch.setattr(DefaultTrainer, "train_fold", lambda _, task: tasks.append(task))
    autocrossdim.distil(raw, work=work, fold="all", **{**QUICK, "set": {**SETTINGS, "unlabelled": value}})
    assert [task.unlabelled is not None for task in tasks] == [number > 0]


def test_an_impossible_value_for_unlabelled_scans_is_an_error(taught: tuple[Path, Path]) -> None:
    raw, work = taught
    with pytest.raises(UserError, match="Setting unlabelled=maybe"):
        autocrossdim.distil(raw, work=work, **{**QUICK, "set": {**SETTINGS, "unlabelled": "maybe"}})


@pytest.mark.parametrize(("recorded", "expected"), [("random", "random"), ("omnia", "imagenet")])
def test_a_student_starts_from_the_encoder_weights_of_its_teachers(
    recorded: str, expected: str, taught: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Omnia-Net is seldom trained on all cases, as the student of all cases would need it."""
    raw, work = taught
    tasks: list[FoldTask] = []
    monkeypatch.setattr(teachers, "compare_with_teachers", lambda *_, **__: None)
    monkeypatch.setattr(DefaultTrainer, "train_fold", lambda _, task: tasks.append(task))
    monkeypatch.setattr(Checkpoint, "first_weights", recorded)
    autocrossdim.distil(raw, work=work, fold="all", restart=True)
    assert [task.weights for task in tasks] == [expected]


def test_a_student_goes_on_from_the_weights_it_was_started_from(
    taught: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, work = taught
    shutil.copytree(work, tmp_path / "work", ignore=shutil.ignore_patterns("omnia_distilled"))
    tasks: list[FoldTask] = []
    monkeypatch.setattr(teachers, "compare_with_teachers", lambda *_, **__: None)
    monkeypatch.setattr(DefaultTrainer, "train_fold", lambda _, task: tasks.append(task))
    workspace = Workspace.of(raw.name, tmp_path / "work")
    started = workspace.fold("omnia_distilled", 0).latest
    started.parent.mkdir(parents=True)
    checkpoint = Checkpoint.read(workspace.fold("omnia", 0).latest)
    replace(checkpoint, provenance={**checkpoint.provenance, "asked": "weights.pth"}).write(started)
    autocrossdim.distil(raw, work=tmp_path / "work")
    assert {task.weights for task in tasks} == {"weights.pth"}


def test_weights_that_are_missing_are_named_before_the_teachers_segment_anything(
    taught: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, work = taught
    shutil.copytree(work, tmp_path / "work", ignore=shutil.ignore_patterns("omnia_distilled"))
    monkeypatch.setattr(teachers, "label_softly", lambda *_: pytest.fail("the teachers segmented scans"))
    with pytest.raises(UserError, match=r"missing\.pth"):
        autocrossdim.distil(raw, work=tmp_path / "work", **{**QUICK, "weights": str(tmp_path / "missing.pth")})
