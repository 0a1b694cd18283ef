"""Soft labels, the targets that they become, and their loss."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from autocrossdim.commands.plugins import Unlabelled
from autocrossdim.data.images import read_label
from autocrossdim.data.splits import Split
from autocrossdim.preprocessing.soft_labels import CERTAIN, SoftLabels, write_soft_labels
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.labels import Labels
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.errors import UserError
from trainers.distilled import DistilledCases, names_to_draw
from trainers.loader import PatchLoader
from trainers.loss import IGNORED, soft_dice
from trainers.settings import Settings
from trainers.soft import soft_target
from trainers.step import make_loss


def test_a_known_voxel_has_the_mean_of_its_label_and_the_teachers_and_another_one_the_teachers() -> None:
    target = np.array([[2, IGNORED]], np.int16)
    soft = np.array([[[0.2, 0.2]], [[0.6, 0.6]]], np.float32)
    found = soft_target(target, soft, regions=False)
    np.testing.assert_allclose(found[:, 0, 0], [0.1, 0.1, 0.8], rtol=1e-6)
    np.testing.assert_allclose(found[:, 0, 1], [0.2, 0.2, 0.6], rtol=1e-6)
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-6)


@pytest.mark.parametrize(("cases", "scans", "repeated"), [(8, 2, 1), (2, 2, 1), (2, 5, 2)])
def test_training_cases_are_repeated_where_there_are_many_scans(cases: int, scans: int, repeated: int) -> None:
    train, names = (tuple(f"{kind}_{n}" for n in range(count)) for kind, count in (("case", cases), ("scan", scans)))
    task: Any = SimpleNamespace(
        store=None, split=Split(train, ()), soft_labels=SoftLabels({}, ""), unlabelled=Unlabelled(Store(Path()), names)
    )
    assert names_to_draw(task) == train * repeated + names


def test_each_region_is_known_or_not() -> None:
    target = np.array([[[1, 0]], [[IGNORED, IGNORED]]], np.int16)
    soft = np.full((2, 1, 2), 0.5, np.float32)
    np.testing.assert_allclose(soft_target(target, soft, regions=True), [[[0.75, 0.25]], [[0.5, 0.5]]])


@pytest.mark.parametrize("regions", [False, True])
def test_for_labels_the_loss_of_soft_targets_is_the_usual_one(regions: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 5, 6)
    usual, taught = (make_loss(regions=regions, soft_targets=soft) for soft in (False, True))
    hard = torch.randint(0, 2, (2, 3, 5, 6)) if regions else torch.randint(0, 3, (2, 5, 6))
    soft = hard if regions else torch.nn.functional.one_hot(hard, 3).movedim(-1, 1)
    torch.testing.assert_close(taught(logits, soft.float()), usual(logits, hard))
    assert taught(logits, hard) == usual(logits, hard)


def test_the_dice_of_soft_targets_is_highest_for_the_target_itself_unlike_the_usual_one() -> None:
    target = torch.full((1, 1, 4, 4), 0.7)
    assert soft_dice(target, target, torch.minimum) == pytest.approx(1)
    assert soft_dice(torch.ones_like(target), target, torch.minimum) < 0.9
    assert soft_dice(torch.ones_like(target), target) > soft_dice(target, target)


EXCLUSIVE = Labels(foreground={"organ": (1,), "nodule": (2,)})
REGIONS = Labels(foreground={"whole": (1, 2), "nodule": (2,)}, regions_class_order=(1, 2))


@pytest.mark.parametrize("labels", [EXCLUSIVE, REGIONS], ids=["classes", "regions"])
def test_teachers_who_know_everything_teach_the_labels_of_an_unlabelled_scan(
    planned: tuple[Path, Path], tmp_path: Path, labels: Labels
) -> None:
    workspace, name = Workspace.of(planned[0].name, planned[1]), "case_00"
    store = Store(workspace.preprocessed("dx"))
    truth, _ = read_label(planned[0] / "labelsTr" / f"{name}.nii.gz")
    known = [np.isin(truth, values) for values in labels.foreground.values()]
    probabilities = np.stack(known if labels.has_regions else [truth == 0, *known]).astype(np.float16)
    write_soft_labels(tmp_path / "soft.b2nd", probabilities, labels, store.record(name).placement, (8, 8, 8))

    soft_labels = SoftLabels({name: tmp_path / "soft.b2nd"}, "")
    case = DistilledCases(store, store, soft_labels, training=()).open(name)
    assert case.soft_label is not None
    label = case.label[:]
    for found, values in zip(case.soft_label[:], labels.foreground.values(), strict=True):
        assert ((found > CERTAIN // 2) == np.isin(label, values)).mean() > 0.99
    assert case.annotated_labels == ()
    for key, values in labels.foreground.items():
        z, y, x = case.voxels[key].T
        assert np.isin(label[z, y, x], values).mean() > 0.95


def test_a_student_also_learns_from_slices_that_were_not_annotated(
    planned: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, name = Workspace.of(planned[0].name, planned[1]), "case_00"
    store = Store(workspace.preprocessed("dx"))
    known = store.open(name)
    truth, _ = read_label(planned[0] / "labelsTr" / f"{name}.nii.gz")
    probabilities = np.stack([truth == 0, truth == 1, truth == 2]).astype(np.float16)
    write_soft_labels(tmp_path / "soft.b2nd", probabilities, EXCLUSIVE, store.record(name).placement, (8, 8, 8))
    sparse = replace(known, annotated_slices=(0,), voxels={"organ": np.zeros((1, 3), np.int32)})
    monkeypatch.setattr(Store, "open", lambda *_: sparse)
    case = DistilledCases(store, None, SoftLabels({name: tmp_path / "soft.b2nd"}, ""), training=(name,)).open(name)
    assert case.annotated_slices is None
    for key, values in EXCLUSIVE.foreground.items():
        z, y, x = case.voxels[key].T
        assert len(set(z)) > 1
        assert np.isin(known.label[:][z, y, x], values).mean() > 0.95


@pytest.mark.parametrize("config", ["dx", "omnia"])
def test_soft_labels_move_along_with_the_image(planned: tuple[Path, Path], config: str) -> None:
    workspace = Workspace.of(planned[0].name, planned[1])
    plan, store = Plan.read(workspace.plan), Store(workspace.preprocessed("dx"))
    options = {"configuration": plan.configuration(config), "labels": plan.labels}
    plain, taught = (
        PatchLoader(store, ["case_00"], settings=Settings(seed=0, augmentation="strong"), **options) for _ in range(2)
    )
    case = store.open("case_00")
    label = case.label[:]
    soft = np.stack([label == 1, label == 2]).astype(np.uint8) * CERTAIN
    unknown = replace(case, label=np.zeros_like(label), annotated_labels=(), soft_label=soft)
    taught._cases = {"case_00": unknown}
    for number in range(3):
        expected, found = plain.batch(number), taught.batch(number)
        np.testing.assert_array_equal(found.data, expected.data)
        assert (found.target.argmax(axis=1) == expected.target).mean() > 0.97
        np.testing.assert_allclose(found.target.sum(axis=1), 1, rtol=1e-5)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "soft.b2nd").write_bytes(b"half")
    with pytest.raises(UserError, match=r"soft\.b2nd: missing or damaged\. Delete it"):
        SoftLabels({"case": tmp_path / "soft.b2nd"}, "").open("case")
    with pytest.raises(UserError, match=r"soft\.b2nd: missing or damaged\. Delete it"):
        SoftLabels({"case": tmp_path / "soft.b2nd"}, "").voxels("case")
