import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from autocrossdim import api
from autocrossdim.cli import app
from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.images import read_label
from autocrossdim.data.splits import load_or_make_splits
from autocrossdim.inference.predictor import Model, Predictor
from autocrossdim.preprocessing.dataset import preprocess_dataset
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.best import Best
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.labels import Labels
from autocrossdim.records.plan import Plan
from autocrossdim.records.run_state import RunState
from autocrossdim.records.workspace import Workspace
from autocrossdim.selection import find_best as module
from autocrossdim.selection.calibration import VOXELS_PER_CASE, Evidence
from autocrossdim.selection.held_out import EvidenceCollector, evidence_file
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json
from trainers.validation import validate

CASES = ("a", "b", "c", "d", "e", "f")
LABELS = Labels.from_dataset_json({"background": 0, "block": 1})
# Intensities are 50 +- 5 outside and 90 +- 5 inside: the first threshold is right, the others find too much or little.
RIGHT, HIGH, LOW = 70.0, 92.0, 46.0


class Threshold(nn.Module):
    """Finds what is brighter than a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, x: Tensor) -> Tensor:
        inside = (x[:, :1] - self.threshold) / 4
        return torch.cat([-inside, inside], dim=1)


class Trained:
    """A dataset in which configurations were 'trained' to thresholds: checkpoints hold nothing else."""

    def __init__(self, raw: Path, work: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
        self.raw, self.work, self.plan = raw, work, plan
        self.space = Workspace.of(raw.name, work)
        self.dataset = load_dataset(raw)
        plan.write(self.space.plan)
        splits = [{"train": [c for c in CASES if c not in val], "val": list(val)} for val in ("ab", "cd", "ef")]
        write_json(self.space.splits, splits)
        self.splits, _ = load_or_make_splits(self.dataset, self.space.splits)
        self.loaded: list[Path] = []

        def load(checkpoints: Sequence[Path], device: torch.device) -> Model:
            self.loaded += checkpoints
            found = [Checkpoint.read(path) for path in checkpoints]
            networks = [Threshold(float(checkpoint.network["threshold"])).eval() for checkpoint in found]
            return Model(plan, plan.configuration(found[0].configuration), networks)

        monkeypatch.setattr(Model, "load", load)

    def train(self, name: str, threshold: float, folds: Sequence[int] = (0, 1, 2), validated: bool = True) -> None:
        configuration = self.plan.configuration(name)
        store = Store(self.space.preprocessed(name))
        preprocess_dataset(self.dataset, self.plan, configuration, store, processes=1)
        for fold in folds:
            split, folder = self.splits[fold], self.space.fold(name, fold)
            Checkpoint(
                plan=self.plan,
                configuration=name,
                fold=fold,
                split={"train": list(split.train), "val": list(split.val)},
                network={"threshold": torch.tensor(threshold + fold)},
                settings={},
                provenance={},
                run=RunState(epoch=1, complete=True),
            ).write(folder.latest)
            if validated:
                validate(folder, store, split, self.dataset.groups, "cpu")

    def find_best(self) -> Best:
        return api.find_best(self.raw, self.work, "cpu", processes=1)


@pytest.fixture
def trained(
    tmp_path: Path,
    make_dataset: Callable[..., Path],
    make_plan: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Trained:
    raw = make_dataset(cases=CASES, direction=np.eye(3).ravel())
    volumes, slices = (make_plan(dims, (2.0, 1.0, 1.0), labels=LABELS) for dims in (3, 2))
    both = volumes.configurations | slices.configurations
    dear = both["dx"].model_copy(update={"cost": both["dx"].cost.model_copy(update={"multiply_adds_per_case": 10**9})})
    plan = volumes.model_copy(update={"configurations": both | {"dx": dear}})
    return Trained(raw, tmp_path / "work", plan, monkeypatch)


def test_the_better_configuration_is_chosen_and_everything_is_told(trained: Trained) -> None:
    trained.train("omnia", HIGH)
    trained.train("dx", RIGHT)
    best = trained.find_best()
    assert best == Best.read(trained.space.best)
    assert best.configurations == ("dx",)
    assert {each.name for each in best.contenders} == {"omnia", "dx", "omnia + dx"}
    costs = {each.name: each.multiply_adds for each in best.contenders}
    assert costs == {"omnia": 10**6, "dx": 10**9, "omnia + dx": 10**9 + 10**6}
    assert best.folds == (0, 1, 2)
    assert any("omnia is simpler, but" in reason for reason in best.reasons)
    assert any("not calibrated: 6 held-out" in reason for reason in best.reasons)
    assert best.calibration.error_before is not None
    assert read_json(trained.space.model("dx") / "summary.json")["calibration"]["temperature"] > 0
    merged = read_json(trained.space.model("ensemble_omnia_dx") / "summary.json")
    assert merged["n_cases"] == len(CASES)


def test_between_equals_the_cheaper_one_is_chosen(trained: Trained) -> None:
    trained.train("omnia", RIGHT)
    trained.train("dx", RIGHT)
    assert trained.find_best().configurations == ("omnia",)


def test_a_pair_is_the_average_of_probabilities_and_wins_where_it_is_better(trained: Trained) -> None:
    trained.train("omnia", HIGH)
    trained.train("dx", LOW)
    best = trained.find_best()
    assert best.configurations == ("omnia", "dx")
    assert set(best.checkpoints) == {f"{name}/fold_{k}" for name in ("omnia", "dx") for k in range(3)}
    # Thresholds of two folds that are averaged: as if there were one between them.
    label, _ = read_label(trained.space.fold("ensemble_omnia_dx", 1).validation / "c.nii.gz")
    truth, _ = read_label(trained.raw / "labelsTr" / "c.nii.gz")
    np.testing.assert_array_equal(label, truth)


def test_configurations_without_all_folds_are_left_out_and_said(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    trained.train("omnia", HIGH, folds=[0, 2])
    trained.train("omnia", HIGH, folds=[1], validated=False)
    with pytest.raises(UserError, match=r"no configuration is trained .* in all 3 folds.*Run `autocrossdim train"):
        trained.find_best()
    said = capsys.readouterr().err
    assert "dx is left out: it was not trained." in said
    assert "omnia is left out: fold 1 is not validated. `autocrossdim train" in said
    trained.train("dx", RIGHT)
    best = trained.find_best()
    assert [each.name for each in best.contenders] == ["dx"]
    assert any("omnia is left out" in reason for reason in best.reasons)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda checkpoint: setattr(checkpoint.run, "complete", False), "fold 2 is not trained to its end"),
        (lambda checkpoint: checkpoint.split.update(val=["a"]), "fold 2 is trained on other cases"),
        (lambda checkpoint: setattr(checkpoint, "plan", changed(checkpoint.plan)), "fold 2 is trained under another"),
    ],
)
def test_a_fold_that_does_not_belong_to_the_others_is_noticed(
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


def changed(plan: Plan) -> Plan:
    dx = plan.configurations["dx"].model_copy(update={"batch_size": 7})
    return plan.model_copy(update={"configurations": plan.configurations | {"dx": dx}})


def test_nothing_is_done_twice_and_only_what_was_trained_again_is_done_anew(trained: Trained) -> None:
    trained.train("omnia", HIGH)
    trained.train("dx", RIGHT)
    first = trained.find_best()
    pair = trained.space.fold("ensemble_omnia_dx", 0)
    trained.loaded.clear()
    assert trained.find_best() == first
    assert trained.loaded == []

    # A break in the middle: one case of a pair is missing.
    (pair.validation / "b.nii.gz").unlink()
    (pair.validation / "summary.json").unlink()
    before = (pair.validation / "a.nii.gz").stat().st_mtime_ns
    assert trained.find_best() == first
    assert trained.loaded == [trained.space.fold(name, 0).latest for name in ("dx", "omnia")]
    assert (pair.validation / "a.nii.gz").stat().st_mtime_ns == before

    # Training a fold further takes away its validation, as the trainer does.
    trained.loaded.clear()
    shutil.rmtree(trained.space.fold("dx", 0).validation)
    trained.train("dx", RIGHT + 1, folds=[0])
    trained.loaded.clear()
    again = trained.find_best()
    assert {path.parent.name for path in trained.loaded} == {"fold_0"}
    assert again.checkpoints["dx/fold_0"] != first.checkpoints["dx/fold_0"]
    assert again.checkpoints["dx/fold_1"] == first.checkpoints["dx/fold_1"]


def test_prediction_follows_best_json_and_notices_when_it_is_of_other_checkpoints(trained: Trained) -> None:
    trained.train("omnia", HIGH)
    trained.train("dx", LOW)
    best = trained.find_best()
    root, dx = trained.space.root, trained.space.model("dx")
    followed = Predictor.load(root, device="cpu")
    assert [model.configuration.name for model in followed.models] == ["omnia", "dx"]
    assert followed.members == 6
    assert followed.temperature == best.calibration.temperature
    assert followed.notes[0].startswith(f"{trained.space.best}: omnia + dx, mean Dice")
    named = Predictor.load(root, configurations=["dx", "omnia"], device="cpu")
    assert named.best == best
    for other in (
        Predictor.load(root, configurations=["dx"], device="cpu"),
        Predictor.load(dx, device="cpu"),
    ):
        assert other.best is None
        assert other.temperature == 1
        assert "is about omnia + dx: its post-processing and calibration are not applied" in other.notes[0]

    trained.train("dx", LOW - 1, folds=[1], validated=False)
    with pytest.raises(UserError, match=r"best\.json: .*fold_1.* was trained further or again .*find_best` again"):
        Predictor.load(root, device="cpu")
    named = Predictor.load(root, configurations=["omnia", "dx"], device="cpu")
    assert named.best is None
    assert "nothing of it is applied" in named.notes[0]
    trained.space.best.write_text("[]")
    with pytest.raises(UserError, match=r"best\.json: damaged"):
        Predictor.load(root, device="cpu")
    assert "damaged" in Predictor.load(dx, device="cpu").notes[0]


def test_post_processing_that_was_learned_is_applied_unless_refused(trained: Trained, tmp_path: Path) -> None:
    # Bright specks far from the block, in every training case.
    for case in CASES:
        add_speck(trained.raw / "imagesTr" / f"{case}_0000.nii.gz")
    trained.train("dx", RIGHT)
    best = trained.find_best()
    assert [step.name for step in best.postprocessing] == ["block"]
    image = trained.raw / "imagesTr" / "a_0000.nii.gz"
    kept = api.predict(trained.space.root, image, tmp_path / "kept", device="cpu", postprocessing=False)
    cleaned = api.predict(trained.space.root, image, tmp_path / "cleaned", device="cpu")
    alone = api.predict(trained.space.model("dx"), image, tmp_path / "alone", device="cpu")
    counts = [int((read_label(path)[0] > 0).sum()) for (path,) in (kept, cleaned, alone)]
    assert counts[1] == counts[2] == counts[0] - 1


def add_speck(path: Path) -> None:
    image = sitk.ReadImage(str(path))
    image[9, 11, 7] = 90.0
    sitk.WriteImage(image, str(path))


def test_uncertainty_is_written_with_the_cases_to_look_at_first(trained: Trained, tmp_path: Path) -> None:
    trained.train("dx", RIGHT - 12)
    trained.find_best()
    images = trained.raw / "imagesTr"
    paths = api.predict(trained.space.root, images, tmp_path / "out", device="cpu", uncertainty=True)
    plain = api.predict(trained.space.root, images, tmp_path / "plain", device="cpu")
    for one, other in zip(paths, plain, strict=True):
        np.testing.assert_array_equal(read_label(one)[0], read_label(other)[0])
    cases = read_json(tmp_path / "out" / "uncertainty.json")
    assert sorted(case["case"] for case in cases) == list(CASES)
    assert [case["expected_dice"] for case in cases] == sorted(case["expected_dice"] for case in cases)
    assert all(0 < case["fold_agreement"] < 1 for case in cases)
    assert (tmp_path / "out" / "uncertainty" / "a_entropy.nii.gz").exists()
    # A case whose segmentation is there but not its uncertainty is done; the others are not done again.
    before = {path: path.stat().st_mtime_ns for path in paths}
    (tmp_path / "out" / "uncertainty" / "b.json").unlink()
    api.predict(trained.space.root, images, tmp_path / "out", device="cpu", uncertainty=True)
    assert {path.name for path in paths if path.stat().st_mtime_ns != before[path]} == {"b.nii.gz"}


def test_validation_leaves_what_calibration_needs(trained: Trained) -> None:
    trained.train("dx", RIGHT)
    evidence = Evidence.read(evidence_file(trained.space.fold("dx", 0), "a"))
    truth, _ = read_label(trained.raw / "labelsTr" / "a.nii.gz")
    np.testing.assert_allclose(evidence.probabilities.sum(axis=1), 1, rtol=1e-5)
    # Voxels in and near the block, each at most once; the network is nearly always right.
    assert truth.sum() < len(evidence.target) <= min(truth.size, VOXELS_PER_CASE)
    assert evidence.target.sum() == truth.sum()
    assert (evidence.probabilities.argmax(axis=1) == evidence.target).mean() > 0.99


def test_no_more_voxels_are_kept_than_asked_for_and_each_has_the_same_chance() -> None:
    counts = np.zeros(4)
    for seed in range(200):
        collector = EvidenceCollector(LABELS, voxels=20)
        collector._random = np.random.default_rng(seed)
        for z in range(4):
            values = torch.full((2, 5, 5), 0.5)
            values[1] = 0.6
            collector.add(values, np.full((5, 5), z % 2))
            collector._truth[collector._truth < 10] += 10 * (z + 1)  # remember the slice
        assert len(collector._truth) == 20
        counts += np.bincount(collector._truth // 10, minlength=5)[1:]
    np.testing.assert_allclose(counts / counts.sum(), 0.25, atol=0.03)


def test_ignored_voxels_and_regions_become_evidence_as_they_should() -> None:
    ignoring = Labels.from_dataset_json({"background": 0, "block": 1, "ignore": 2})
    collector = EvidenceCollector(ignoring)
    collector.add(torch.tensor([[[0.2, 0.3]], [[0.8, 0.7]]]), np.array([[1, 2]]))
    assert collector.result().target.tolist() == [1]
    regions = Labels.from_dataset_json({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
    collector = EvidenceCollector(regions)
    collector.add(torch.tensor([[[0.9]], [[0.4]]]), np.array([[1]]))
    found = collector.result()
    np.testing.assert_allclose(found.probabilities, [[0.1, 0.9], [0.6, 0.4]], rtol=1e-6)
    assert found.target.tolist() == [1, 0]


def test_the_command_shows_what_was_compared_and_why(trained: Trained) -> None:
    trained.train("dx", RIGHT)
    words = ["find_best", str(trained.raw), "--work", str(trained.work), "--device", "cpu", "--processes", "1"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "Cross-validation of Dataset001_Tiny" in result.output
    assert "chosen" in result.output
    assert "dx has the highest mean Dice" in result.output


def test_the_module_is_reached_from_the_package() -> None:
    import autocrossdim

    assert autocrossdim.find_best is api.find_best
    assert module.find_best is not api.find_best
