import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from typer.testing import CliRunner

import autocrossdim
from autocrossdim.cli import app
from autocrossdim.data.images import read_label
from autocrossdim.inference.predictor import Predictor
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.best import Best
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.normalization import Normalization
from autocrossdim.records.plan import Plan
from autocrossdim.records.summary import Summary
from autocrossdim.selection.calibration import Evidence
from autocrossdim.selection.held_out import evidence_file
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json
from tests.selection.conftest import CASES, HIGH, LOW, RIGHT, Trained


def test_the_better_configuration_is_chosen_and_everything_is_recorded(trained: Trained) -> None:
    trained.train("omnia", HIGH)
    trained.train("dx", RIGHT)
    best = trained.find_best()
    assert best == Best.read(trained.space.best)
    assert best.configurations == ("dx",)
    assert {each.name for each in best.contenders} == {"omnia", "dx", "omnia + dx"}
    costs = {each.name: each.multiply_adds for each in best.contenders}
    assert costs == {"omnia": 10**6, "dx": 10**9, "omnia + dx": 10**9 + 10**6}
    assert best.folds == (0, 1, 2)
    assert any("omnia is cheaper, but" in reason for reason in best.reasons)
    assert any("patients (available: 6)" in reason for reason in best.reasons)
    assert best.calibration.error_before is not None
    assert read_json(trained.space.model("dx") / "summary.json")["calibration"]["temperature"] > 0
    merged = read_json(trained.space.model("ensemble_omnia_dx") / "summary.json")
    assert merged["n_cases"] == len(CASES)


def test_unequal_training_budgets_are_recorded_and_mentioned(trained: Trained) -> None:
    trained.train("omnia", HIGH, steps=500, epochs=10)
    trained.train("dx", RIGHT, steps=50, epochs=1)
    best = trained.find_best()
    steps = {each.name: each.steps_per_fold for each in best.contenders}
    assert steps == {"omnia": 500, "dx": 50, "omnia + dx": 550}
    assert {each.name: each.minutes_per_fold for each in best.contenders}["dx"] == pytest.approx(0.5)
    assert any("omnia 500 steps in 5.0 minutes, dx 50 steps in 0.5 minutes" in sentence for sentence in best.budgets)
    assert any("epochs (omnia: 10, dx: 1)" in sentence for sentence in best.budgets)


def test_equal_training_budgets_are_not_mentioned(trained: Trained) -> None:
    trained.train("omnia", HIGH)
    trained.train("dx", RIGHT)
    assert trained.find_best().budgets == ()


def test_between_equals_the_cheaper_one_is_chosen(trained: Trained) -> None:
    trained.train("omnia", RIGHT)
    trained.train("dx", RIGHT)
    assert trained.find_best().configurations == ("omnia",)


def test_a_pair_averages_probabilities_and_is_chosen_if_it_is_better(trained: Trained) -> None:
    trained.train("omnia", HIGH)
    trained.train("dx", LOW)
    best = trained.find_best()
    assert best.configurations == ("omnia", "dx")
    assert set(best.checkpoints) == {f"{name}/fold_{k}" for name in ("omnia", "dx") for k in range(3)}
    # Averaging the probabilities of two thresholds amounts to a threshold halfway between them.
    label, _ = read_label(trained.space.fold("ensemble_omnia_dx", 1).validation / "c.nii.gz")
    truth, _ = read_label(trained.raw / "labelsTr" / "c.nii.gz")
    np.testing.assert_array_equal(label, truth)


def test_configurations_without_all_folds_are_left_out_and_named(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.train("omnia", HIGH, folds=[0, 2])
    trained.train("omnia", HIGH, folds=[1], validated=False)
    with pytest.raises(UserError, match=r"no configuration is trained .* in all 3 folds.*Run `autocrossdim train"):
        trained.find_best()
    said = capsys.readouterr().err
    assert "dx is left out: it is not trained." in said
    assert "omnia is left out: fold 1 is not validated. Run `autocrossdim train" in said
    trained.train("dx", RIGHT)
    best = trained.find_best()
    assert [each.name for each in best.contenders] == ["dx"]
    assert any("omnia is left out" in reason for reason in best.reasons)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda checkpoint: setattr(checkpoint.run, "complete", False), "fold 2 is not fully trained"),
        (lambda checkpoint: checkpoint.split.update(train=["e"]), "fold 2 is trained on other cases"),
        (
            lambda checkpoint: setattr(checkpoint, "plan", changed(checkpoint.plan)),
            "fold 2 is trained under another plan (different: configuration dx (batch_size); add --restart)",
        ),
        (
            lambda checkpoint: setattr(checkpoint, "plan", normalised(checkpoint.plan)),
            "fold 2 is trained under another plan (different: normalisation; add --restart)",
        ),
    ],
)
def test_a_fold_that_does_not_belong_to_the_others_is_detected(
    trained: Trained, capsys: pytest.CaptureFixture[str], damage: Callable[[Checkpoint], object], said: str
) -> None:
    trained.train("dx", RIGHT)
    latest = trained.space.fold("dx", 2).latest
    checkpoint = Checkpoint.read(latest)
    damage(checkpoint)
    checkpoint.write(latest)
    with pytest.raises(UserError):
        trained.find_best()
    assert said in capsys.readouterr().err


def test_a_fold_is_not_compared_on_a_case_that_it_was_trained_on_under_another_name(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.train("dx", RIGHT)
    latest = trained.space.fold("dx", 2).latest
    checkpoint = Checkpoint.read(latest)
    checkpoint.images["old"] = Store(trained.space.preprocessed("dx")).image_hash("e")
    checkpoint.write(latest)
    with pytest.raises(UserError):
        trained.find_best()
    assert "it would be validated with e (then named old), which it was trained on" in capsys.readouterr().err


def changed(plan: Plan) -> Plan:
    dx = plan.configurations["dx"].model_copy(update={"batch_size": 7})
    return plan.model_copy(update={"configurations": plan.configurations | {"dx": dx}})


def normalised(plan: Plan) -> Plan:
    return plan.model_copy(update={"normalization": (Normalization(scheme="zscore"),)})


def test_results_are_reused_and_only_retrained_folds_are_predicted_again(trained: Trained) -> None:
    trained.train("omnia", HIGH)
    trained.train("dx", RIGHT)
    first = trained.find_best()
    pair = trained.space.fold("ensemble_omnia_dx", 0)
    trained.loaded.clear()
    assert trained.find_best() == first
    assert trained.loaded == []

    # An interrupted run: one case of a pair is missing.
    (pair.validation / "b.nii.gz").unlink()
    (pair.validation / "summary.json").unlink()
    before = (pair.validation / "a.nii.gz").stat().st_mtime_ns
    assert trained.find_best() == first
    assert trained.loaded == [trained.space.fold(name, 0).latest for name in ("dx", "omnia")]
    assert (pair.validation / "a.nii.gz").stat().st_mtime_ns == before

    # Further training of a fold deletes its validation, as the trainer does.
    trained.loaded.clear()
    shutil.rmtree(trained.space.fold("dx", 0).validation)
    trained.train("dx", RIGHT + 1, folds=[0])
    trained.loaded.clear()
    again = trained.find_best()
    assert {path.parent.name for path in trained.loaded} == {"fold_0"}
    assert again.checkpoints["dx/fold_0"] != first.checkpoints["dx/fold_0"]
    assert again.checkpoints["dx/fold_1"] == first.checkpoints["dx/fold_1"]


def test_a_corrected_label_is_evaluated_again_and_the_case_is_named(trained: Trained) -> None:
    trained.train("dx", RIGHT)
    before = trained.find_best()
    assert before.contenders[0].dice > 0.99
    label = sitk.ReadImage(str(trained.raw / "labelsTr" / "c.nii.gz"))
    sitk.WriteImage(label * 0, str(trained.raw / "labelsTr" / "c.nii.gz"))
    trained.loaded.clear()
    after = trained.find_best()
    assert trained.loaded == [trained.space.fold("dx", 1).latest]
    assert after.contenders[0].dice == pytest.approx(before.contenders[0].dice * 5 / 6, abs=0.01)
    sentence = "1 case changed since the folds were validated (c), so it was segmented"
    assert any(sentence in reason for reason in after.reasons)
    evidence = Evidence.read(evidence_file(trained.space.fold("dx", 1), "c"))
    assert evidence.target.sum() == 0
    trained.loaded.clear()
    assert trained.find_best().contenders == after.contenders
    assert trained.loaded == []


def test_groups_that_were_added_after_training_count_in_the_intervals(
    trained: Trained, edit_json: Callable[..., None]
) -> None:
    trained.train("dx", HIGH)
    assert trained.find_best().case_score.n_groups == len(CASES)
    groups = {name: f"p{index // 2}" for index, name in enumerate(CASES)}
    edit_json(trained.raw, groups=groups)
    assert trained.find_best().case_score.n_groups == 3
    results = Summary.read(trained.space.summary("dx")).metric_per_case
    assert {case.file.removesuffix(".nii.gz"): case.group for case in results} == groups


def test_folds_from_before_cases_came_and_went_are_compared_and_named(trained: Trained) -> None:
    """Case c is gone, and f came: fold 1 has fewer cases, and fold 2 validates f although it was not trained for it."""
    trained.train("dx", RIGHT)
    folder = trained.space.fold("dx", 2)
    checkpoint = Checkpoint.read(folder.latest)
    for name in ("f.nii.gz", "calibration/f.npz"):
        (folder.validation / name).unlink()
    summary = Summary.read(folder.summary)
    summary.model_copy(update={"metric_per_case": summary.metric_per_case[:1]}).write(folder.summary)
    checkpoint.split = {"train": ["a", "b", "c", "d"], "val": ["e"]}
    checkpoint.write(folder.latest)
    vals = ("ab", "d", "ef")
    write_json(
        trained.space.splits,
        [{"train": [c for c in "abdef" if c not in val], "val": list(val)} for val in vals],
    )
    best = trained.find_best()
    assert Summary.read(trained.space.summary("dx")).n_cases == 5
    assert any("1 case had no result yet (f) and was segmented" in reason for reason in best.reasons)
    assert "dx fold 2 was trained on 3 of the 3 current training cases and on c, no longer among them." in best.reasons


def test_a_corrected_image_is_segmented_again(trained: Trained) -> None:
    trained.train("dx", RIGHT)
    trained.find_best()
    segmentation = trained.space.fold("dx", 0).validation / "a.nii.gz"
    before = read_label(segmentation)[0].sum()
    add_speck(trained.raw / "imagesTr" / "a_0000.nii.gz")
    trained.find_best()
    assert read_label(segmentation)[0].sum() == before + 1


def test_prediction_follows_best_json_unless_the_checkpoints_changed(trained: Trained) -> None:
    trained.train("omnia", HIGH)
    trained.train("dx", LOW)
    best = trained.find_best()
    root, dx = trained.space.root, trained.space.model("dx")
    followed = Predictor.load(root, device="cpu")
    assert [model.configuration.name for model in followed.models] == ["omnia", "dx"]
    assert followed.members == 6
    assert followed.temperature == best.calibration.temperature
    assert followed.notes[0].startswith(f"{trained.space.best}: omnia + dx, mean Dice")
    named = Predictor.load(root, config=["dx", "omnia"], device="cpu")
    assert named.best == best
    for other in (
        Predictor.load(root, config=["dx"], device="cpu"),
        Predictor.load(dx, device="cpu"),
    ):
        assert other.best is None
        assert other.temperature == 1
        assert "is about omnia + dx: its post-processing and calibration are not applied" in other.notes[0]

    trained.train("dx", LOW - 1, folds=[1], validated=False)
    with pytest.raises(UserError, match=r"best\.json: .*fold_1.* was trained further or again .*find_best` again"):
        Predictor.load(root, device="cpu")
    named = Predictor.load(root, config=["omnia", "dx"], device="cpu")
    assert named.best is None
    assert "it is not applied" in named.notes[0]
    trained.space.best.write_text("[]")
    with pytest.raises(UserError, match=r"best\.json: damaged"):
        Predictor.load(root, device="cpu")
    assert "damaged" in Predictor.load(dx, device="cpu").notes[0]


def test_the_chosen_post_processing_is_applied_unless_switched_off(trained: Trained, tmp_path: Path) -> None:
    # Every training case has a bright speck far from the block.
    for case in CASES:
        add_speck(trained.raw / "imagesTr" / f"{case}_0000.nii.gz")
    trained.train("dx", RIGHT)
    best = trained.find_best()
    assert [step.name for step in best.postprocessing] == ["block"]
    image = trained.raw / "imagesTr" / "a_0000.nii.gz"
    kept = autocrossdim.predict(trained.space.root, image, tmp_path / "kept", device="cpu", postprocessing=False)
    cleaned = autocrossdim.predict(trained.space.root, image, tmp_path / "cleaned", device="cpu")
    alone = autocrossdim.predict(trained.space.model("dx"), image, tmp_path / "alone", device="cpu")
    counts = [int((read_label(path)[0] > 0).sum()) for (path,) in (kept, cleaned, alone)]
    assert counts[1] == counts[2] == counts[0] - 1


def add_speck(path: Path) -> None:
    image = sitk.ReadImage(str(path))
    image[9, 11, 7] = 90.0
    sitk.WriteImage(image, str(path))


def test_uncertainty_is_written_with_the_cases_to_review_first(trained: Trained, tmp_path: Path) -> None:
    trained.train("dx", RIGHT - 12)
    trained.find_best()
    images = trained.raw / "imagesTr"
    paths = autocrossdim.predict(trained.space.root, images, tmp_path / "out", device="cpu", uncertainty=True)
    plain = autocrossdim.predict(trained.space.root, images, tmp_path / "plain", device="cpu")
    for one, other in zip(paths, plain, strict=True):
        np.testing.assert_array_equal(read_label(one)[0], read_label(other)[0])
    cases = read_json(tmp_path / "out" / "uncertainty.json")
    assert sorted(case["case"] for case in cases) == list(CASES)
    assert [case["expected_dice"] for case in cases] == sorted(case["expected_dice"] for case in cases)
    assert all(0 < case["fold_agreement"] < 1 for case in cases)
    assert (tmp_path / "out" / "uncertainty" / "a_entropy.nii.gz").exists()
    # Only a case whose uncertainty is missing is predicted again.
    before = {path: path.stat().st_mtime_ns for path in paths}
    (tmp_path / "out" / "uncertainty" / "b_uncertainty.json").unlink()
    autocrossdim.predict(trained.space.root, images, tmp_path / "out", device="cpu", uncertainty=True)
    assert {path.name for path in paths if path.stat().st_mtime_ns != before[path]} == {"b.nii.gz"}


def test_an_altered_image_is_reported_as_unlike_the_training_data(
    trained: Trained, tmp_path: Path, write_image: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    trained.train("dx", RIGHT)
    best = trained.find_best()
    assert best.likeness is not None
    assert not best.likeness.features  # these networks have no encoder
    assert any("New images are compared with the training data" in reason for reason in best.reasons)
    images = tmp_path / "images"
    images.mkdir()
    for case in "ab":
        shutil.copy(trained.raw / "imagesTr" / f"{case}_0000.nii.gz", images)
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(images / "a_0000.nii.gz")))
    write_image(images / "inverted_0000.nii.gz", 140 - array, (2, 1, 1))
    capsys.readouterr()
    autocrossdim.predict(trained.space.root, images, tmp_path / "out", device="cpu", uncertainty=True)
    (unlike,) = [line for line in capsys.readouterr().err.splitlines() if "unlike the training data" in line]
    assert "warning: inverted: unlike the training data (intensity distribution, " in unlike
    cases = {case["case"]: case for case in read_json(tmp_path / "out" / "uncertainty.json")}
    assert cases["inverted"]["unlike_training"] > 1 > max(cases[name]["unlike_training"] for name in "ab")
    assert cases["inverted"]["unlike_in"] == "intensity"

    trained.space.best.unlink()
    without = Predictor.load(trained.space.root, device="cpu")
    assert "Images are not compared with the training data: this needs the result of `find_best`" in without.notes[-1]
    assert without(images / "inverted_0000.nii.gz").familiarity is None


def test_the_command_prints_the_comparison_and_the_reasons(trained: Trained) -> None:
    trained.train("dx", RIGHT)
    words = ["find_best", str(trained.raw), "--work", str(trained.work), "--device", "cpu", "--processes", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "Cross-validation of Dataset001_Tiny" in result.output
    assert "chosen" in result.output
    assert "dx is the only candidate, with a mean Dice of" in result.output
    assert "50" in result.output
    assert "0.5" in result.output
