import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocrossdim.data.images import Geometry, read_image, read_label, same_place
from autocrossdim.inference.restore import to_label
from autocrossdim.inference.uncertainty import (
    Uncertainty,
    UncertaintyMaps,
    describe,
    entropy,
    forget,
    is_written,
    soft_dice,
    soft_dice_sums,
    tell,
    temper,
    write_list,
    write_uncertainty,
)
from autocrossdim.preprocessing.case import Placement
from autocrossdim.records.calibration import CaseScore
from autocrossdim.records.labels import Labels
from autocrossdim.selection import calibration
from autocrossdim.system.errors import UserError

CLASSES = Labels.from_dataset_json({"background": 0, "a": 3, "b": 7})
REGIONS = Labels.from_dataset_json({"background": 0, "whole": [1, 2], "core": [2], "more": [3]}, [1, 2, 3])
BOTH = pytest.mark.parametrize("labels", [CLASSES, REGIONS], ids=["classes", "regions"])


def probabilities(labels: Labels, shape: tuple[int, ...] = (4, 5), seed: int = 0, scale: float = 3) -> torch.Tensor:
    logits = scale * torch.randn(3, *shape, generator=torch.Generator().manual_seed(seed))
    return logits.sigmoid() if labels.has_regions else logits.softmax(dim=0)


def placement(cropped: tuple[int, int, int], margin: int = 0) -> Placement:
    return Placement(
        original_shape=tuple(n + 2 * margin for n in cropped),
        transpose=(0, 1, 2),
        box=tuple((margin, margin + n) for n in cropped),
        spacing=(1, 1, 1),
        target=(1, 1, 1),
        shape=cropped,
    )


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 4), st.integers(0, 99), st.sampled_from([CLASSES, REGIONS]), st.sampled_from([0.1, 3.0, 60.0]))
def test_temperature_never_changes_a_label(temperature: float, seed: int, labels: Labels, scale: float) -> None:
    before = probabilities(labels, seed=seed, scale=scale)
    after = temper(before, labels, temperature)
    assert torch.isfinite(after).all()
    np.testing.assert_array_equal(to_label(after, labels), to_label(before, labels))
    assert ((after >= 0) & (after <= 1)).all()


def test_probabilities_are_tempered_as_when_the_temperature_was_fitted() -> None:
    values = probabilities(CLASSES)
    expected = calibration.temper(values.flatten(1).T.numpy(), 1.7).T.reshape(values.shape)
    np.testing.assert_allclose(temper(values, CLASSES, 1.7), expected, rtol=1e-4)
    inside = probabilities(REGIONS)
    pairs = torch.stack([1 - inside, inside]).flatten(1).T.numpy()
    expected = calibration.temper(pairs, 1.7)[:, 1].reshape(inside.shape)
    np.testing.assert_allclose(temper(inside, REGIONS, 1.7), expected, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.sampled_from([CLASSES, REGIONS]), st.sampled_from([0.0, 3.0, 300.0]))
def test_entropy_lies_between_0_and_that_of_no_idea(seed: int, labels: Labels, scale: float) -> None:
    found = entropy(probabilities(labels, seed=seed, scale=scale), labels)
    most = math.log(2 if labels.has_regions else 3)
    assert (found >= 0).all()
    assert (found <= most + 1e-6).all()
    if scale == 0:
        torch.testing.assert_close(found, torch.full_like(found, most))


@BOTH
def test_soft_dice_of_certainty_is_1_and_of_doubt_what_the_definition_says(labels: Labels) -> None:
    values = probabilities(labels, (6, 7))
    certain = (values > 0.5).float() if labels.has_regions else torch.nn.functional.one_hot(values.argmax(0), 3)
    certain = certain if labels.has_regions else certain.movedim(-1, 0).float()
    np.testing.assert_allclose(soft_dice(soft_dice_sums(certain, labels)), 1)
    p, s = (values, certain) if labels.has_regions else (values[1:], certain[1:])
    expected = 2 * (p * s).sum((1, 2)) / (p.sum((1, 2)) + s.sum((1, 2)))
    np.testing.assert_allclose(soft_dice(soft_dice_sums(values, labels)), expected, rtol=1e-5)


@BOTH
def test_folds_that_agree_and_are_certain_give_the_best_of_everything(labels: Labels) -> None:
    label = np.random.default_rng(0).choice(labels.values, (2, 5, 6))
    maps = UncertaintyMaps(labels, placement((2, 5, 6)), members=4)
    for z in range(2):
        one_hot = np.stack([label[z] == value for value in labels.values])
        values = labels.to_regions(label[z]) if labels.has_regions else one_hot
        maps.add((z, slice(None)), torch.from_numpy(values.astype(np.float32)), label[z], np.stack([label[z]] * 4))
    found = maps.result()
    assert found.disagreement is not None
    assert found.agreement is not None
    assert not found.entropy.any()
    assert not found.disagreement.any()
    assert found.confidence == found.agreement == dict.fromkeys(labels.names, 1.0)
    told = describe("case", found, CaseScore())
    assert (told.expected_dice, told.fold_agreement, told.not_found) == (1, 1, ())


def test_agreement_is_the_mean_dice_of_all_pairs_and_disagreement_the_share_that_says_otherwise() -> None:
    label = np.array([[3, 3, 0, 0]])
    members = np.array([[[3, 3, 0, 0]], [[3, 0, 0, 0]], [[3, 3, 3, 0]]])
    maps = UncertaintyMaps(CLASSES, placement((1, 1, 4)), members=3)
    maps.add((0, slice(None)), probabilities(CLASSES, (1, 4)), label, members)
    found = maps.result()
    assert found.agreement is not None
    assert found.agreement["a"] == pytest.approx((2 / 3 + 4 / 5 + 2 / 4) / 3)
    assert math.isnan(found.agreement["b"])
    np.testing.assert_allclose(found.disagreement, [[[0, 1 / 3, 1 / 3, 0]]], rtol=1e-6)
    assert found.disagreement is not None
    assert found.disagreement.dtype == found.entropy.dtype == np.float32


def test_what_was_cropped_away_is_certain_and_one_fold_knows_no_disagreement() -> None:
    maps = UncertaintyMaps(CLASSES, placement((1, 4, 5), margin=2), members=1)
    maps.add((0, slice(None)), probabilities(CLASSES), np.zeros((4, 5)), np.zeros((1, 4, 5)))
    found = maps.result()
    assert found.entropy.shape == (5, 8, 9)
    assert found.entropy.sum() == pytest.approx(found.entropy[2:3, 2:6, 2:7].sum())
    assert found.disagreement is None
    assert found.agreement is None
    assert describe("case", found, CaseScore()).fold_agreement is None


def test_strips_add_up_to_the_whole() -> None:
    values, members = probabilities(CLASSES, (6, 5)), np.random.default_rng(0).choice(CLASSES.values, (3, 6, 5))
    whole, parts = (UncertaintyMaps(CLASSES, placement((1, 6, 5)), members=3) for _ in range(2))
    whole.add((0, slice(None)), values, members[0], members)
    for strip in (slice(0, 4), slice(4, 6)):
        parts.add((0, strip), values[:, strip], members[0, strip], members[:, strip])
    one, other = whole.result(), parts.result()
    np.testing.assert_array_equal(one.entropy, other.entropy)
    assert one.agreement == pytest.approx(other.agreement, nan_ok=True)
    assert one.confidence == pytest.approx(other.confidence)


def uncertainty(confidence: float, agreement: float) -> Uncertainty:
    zeros = np.zeros((2, 3, 4), np.float32)
    return Uncertainty(zeros, zeros + 0.5, {"a": confidence, "b": math.nan}, {"a": agreement, "b": math.nan})


@pytest.mark.parametrize(("ending", "written"), [(".nii.gz", ".nii.gz"), (".mha", ".mha"), (".png", ".nii.gz")])
def test_maps_lie_on_the_images_grid_and_the_list_has_the_doubtful_on_top(
    tmp_path: Path, ending: str, written: str
) -> None:
    geometry = Geometry((2, 3, 4), (3.0, 1.0, 1.5), (5, 6, 7), (0, 1, 0, 1, 0, 0, 0, 0, -1), 3)
    score = CaseScore(slope=0.5, intercept=0.25, calibrated=True, n_cases=9, n_groups=9, error=0.1, error_of_mean=0.2)
    for name, confidence, agreement in (("sure", 0.9, 0.9), ("doubt", 0.5, 0.9), ("torn", 0.5, 0.3)):
        assert not is_written(tmp_path, name)
        write_uncertainty(tmp_path, name, uncertainty(confidence, agreement), geometry, ending, score)
        assert is_written(tmp_path, name)
    write_uncertainty(tmp_path, "none", uncertainty(math.nan, math.nan), geometry, ending, score)
    found = read_image([tmp_path / "uncertainty" / f"torn_disagreement{written}"])
    assert same_place(found.geometry, geometry) is None
    assert (found.array == 0.5).all()
    assert (tmp_path / "uncertainty" / f"torn_entropy{written}").exists()

    cases = write_list(tmp_path)
    assert [case.case for case in cases] == ["none", "torn", "doubt", "sure"]
    assert cases[-1].expected_dice == pytest.approx(0.7)
    with (tmp_path / "uncertainty.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {
        "case": "torn",
        "expected_dice": "0.5000",
        "calibrated": "yes",
        "fold_agreement": "0.3000",
        "labels_not_found": "b",
    }
    assert rows[0]["expected_dice"] == ""
    assert json.loads((tmp_path / "uncertainty.json").read_text())[1]["case"] == "torn"
    assert "Look first at none, torn, doubt and 1 more" in tell(cases, score, members=5)[-1]
    assert "Only one fold" in tell(cases, score, members=1)[1]

    forget(tmp_path, "none")
    assert write_list(tmp_path)[0].case == "torn"
    (tmp_path / "uncertainty" / "torn.json").write_text("{}")
    with pytest.raises(UserError, match=r"torn\.json: damaged"):
        write_list(tmp_path)


def test_segmentations_can_still_be_read_as_a_folder(tmp_path: Path) -> None:
    geometry = Geometry((2, 3, 4), (1.0, 1.0, 1.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 3)
    write_uncertainty(tmp_path, "case", uncertainty(0.5, 0.5), geometry, ".nii.gz", CaseScore())
    assert not list(tmp_path.glob("*.nii.gz"))
    with pytest.raises(UserError):
        read_label(tmp_path / "case.nii.gz")
