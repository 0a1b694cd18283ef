import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocrossdim.inference.case_list import describe
from autocrossdim.inference.restore import to_label
from autocrossdim.inference.uncertainty import (
    UncertaintyMaps,
    entropy,
    soft_dice,
    soft_dice_sums,
    temper,
)
from autocrossdim.preprocessing.case import Placement
from autocrossdim.records.calibration import CaseScore
from autocrossdim.records.labels import Labels
from autocrossdim.selection import calibration

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
def test_temperature_scaling_changes_no_label(temperature: float, seed: int, labels: Labels, scale: float) -> None:
    before = probabilities(labels, seed=seed, scale=scale)
    after = temper(before, labels, temperature)
    assert torch.isfinite(after).all()
    np.testing.assert_array_equal(to_label(after, labels), to_label(before, labels))
    assert ((after >= 0) & (after <= 1)).all()


@BOTH
def test_sums_of_a_slice_need_no_float64_and_are_right_for_a_large_slice(labels: Labels) -> None:
    assert soft_dice_sums(probabilities(labels), labels).dtype == torch.float32  # Apple's GPUs have no float64
    side = 4100  # more voxels than float32 can count one by one
    values = torch.tensor([0.03, 0.97, 0.0])[-len(labels.foreground) - 1 + labels.has_regions :]
    values = values[:, None, None].expand(-1, side, side)
    inside, everywhere, size = soft_dice_sums(values, labels)[:, 0].tolist()
    expected = float(values[1 - labels.has_regions, 0, 0])
    assert size == (side**2 if expected > 0.5 else 0)
    assert everywhere == pytest.approx(expected * side**2, rel=1e-5)
    assert inside == pytest.approx(size * expected, rel=1e-4)


def test_temperature_scaling_is_the_one_that_was_fitted() -> None:
    values = probabilities(CLASSES)
    expected = calibration.scale_temperature(values.flatten(1).T.numpy(), 1.7).T.reshape(values.shape)
    np.testing.assert_allclose(temper(values, CLASSES, 1.7), expected, rtol=1e-4)
    inside = probabilities(REGIONS)
    pairs = torch.stack([1 - inside, inside]).flatten(1).T.numpy()
    expected = calibration.scale_temperature(pairs, 1.7)[:, 1].reshape(inside.shape)
    np.testing.assert_allclose(temper(inside, REGIONS, 1.7), expected, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 999), st.sampled_from([CLASSES, REGIONS]), st.sampled_from([0.0, 3.0, 300.0]))
def test_entropy_lies_between_0_and_that_of_a_uniform_distribution(seed: int, labels: Labels, scale: float) -> None:
    found = entropy(probabilities(labels, seed=seed, scale=scale), labels)
    most = math.log(2 if labels.has_regions else 3)
    assert (found >= 0).all()
    assert (found <= most + 1e-6).all()
    if scale == 0:
        torch.testing.assert_close(found, torch.full_like(found, most))


@BOTH
def test_soft_dice_is_1_for_certain_probabilities_and_follows_its_definition_for_others(labels: Labels) -> None:
    values = probabilities(labels, (6, 7))
    certain = (values > 0.5).float() if labels.has_regions else torch.nn.functional.one_hot(values.argmax(0), 3)
    certain = certain if labels.has_regions else certain.movedim(-1, 0).float()
    np.testing.assert_allclose(soft_dice(soft_dice_sums(certain, labels)), 1)
    p, s = (values, certain) if labels.has_regions else (values[1:], certain[1:])
    expected = 2 * (p * s).sum((1, 2)) / (p.sum((1, 2)) + s.sum((1, 2)))
    np.testing.assert_allclose(soft_dice(soft_dice_sums(values, labels)), expected, rtol=1e-5)


@BOTH
def test_certain_folds_that_agree_have_no_uncertainty(labels: Labels) -> None:
    label = np.random.default_rng(0).choice(labels.values, (2, 5, 6))
    maps = UncertaintyMaps(labels, placement((2, 5, 6)), members=4)
    for z in range(2):
        one_hot = np.stack([label[z] == value for value in labels.values])
        values = labels.to_regions(label[z]) if labels.has_regions else one_hot
        maps.add(
            (z, slice(None)),
            torch.from_numpy(values.astype(np.float32)),
            label=label[z],
            members=np.stack([label[z]] * 4),
        )
    found = maps.result()
    assert found.disagreement is not None
    assert found.agreement is not None
    assert not found.entropy.any()
    assert not found.disagreement.any()
    assert found.confidence == found.agreement == dict.fromkeys(labels.names, 1.0)
    numbers = describe("case", found, CaseScore())
    assert (numbers.expected_dice, numbers.fold_agreement, numbers.labels_not_found) == (1, 1, ())


def test_agreement_is_the_mean_dice_of_all_pairs_and_disagreement_the_share_of_other_labels() -> None:
    label = np.array([[3, 3, 0, 0]])
    members = np.array([[[3, 3, 0, 0]], [[3, 0, 0, 0]], [[3, 3, 3, 0]]])
    maps = UncertaintyMaps(CLASSES, placement((1, 1, 4)), members=3)
    maps.add((0, slice(None)), probabilities(CLASSES, (1, 4)), label=label, members=members)
    found = maps.result()
    assert found.agreement is not None
    assert found.agreement["a"] == pytest.approx((2 / 3 + 4 / 5 + 2 / 4) / 3)
    assert math.isnan(found.agreement["b"])
    np.testing.assert_allclose(found.disagreement, [[[0, 1 / 3, 1 / 3, 0]]], rtol=1e-6)
    assert found.disagreement is not None
    assert found.disagreement.dtype == found.entropy.dtype == np.float32


def test_voxels_that_were_cropped_away_are_certain_and_a_single_fold_has_no_disagreement() -> None:
    maps = UncertaintyMaps(CLASSES, placement((1, 4, 5), margin=2), members=1)
    maps.add((0, slice(None)), probabilities(CLASSES), label=np.zeros((4, 5)), members=np.zeros((1, 4, 5)))
    found = maps.result()
    assert found.entropy.shape == (5, 8, 9)
    assert found.entropy.sum() == pytest.approx(found.entropy[2:3, 2:6, 2:7].sum())
    assert found.disagreement is None
    assert found.agreement is None
    assert describe("case", found, CaseScore()).fold_agreement is None


def test_strips_give_the_same_result_as_whole_slices() -> None:
    values, members = probabilities(CLASSES, (6, 5)), np.random.default_rng(0).choice(CLASSES.values, (3, 6, 5))
    whole, parts = (UncertaintyMaps(CLASSES, placement((1, 6, 5)), members=3) for _ in range(2))
    whole.add((0, slice(None)), values, label=members[0], members=members)
    for strip in (slice(0, 4), slice(4, 6)):
        parts.add((0, strip), values[:, strip], label=members[0, strip], members=members[:, strip])
    one, other = whole.result(), parts.result()
    np.testing.assert_array_equal(one.entropy, other.entropy)
    assert one.agreement == pytest.approx(other.agreement, nan_ok=True)
    assert one.confidence == pytest.approx(other.confidence)
