import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autocrossdim.evaluation.metrics import METRICS, case_metrics, surface, surface_distances
from autocrossdim.records.labels import Labels

ORGAN = Labels(foreground={"organ": (1,)})
ISOTROPIC = (1.0, 1.0, 1.0)


def volume(*voxels, shape=(4, 5, 6)):
    array = np.zeros(shape, np.uint8)
    for voxel in voxels:
        array[voxel] = 1
    return array


def metrics_of(prediction, reference, labels=ORGAN, spacing=ISOTROPIC, **options):
    return case_metrics(prediction, reference, labels, spacing=spacing, **options)["1"]


def test_overlap_counts_voxels_as_nnunet_does():
    prediction = volume((0, 0, 0), (0, 0, 1), (0, 0, 2))
    reference = volume((0, 0, 1), (0, 0, 2), (0, 0, 3), (0, 0, 4))

    metrics = metrics_of(prediction, reference)

    assert tuple(metrics) == METRICS
    assert {key: metrics[key] for key in ("TP", "FP", "FN", "TN", "n_pred", "n_ref")} == {
        "TP": 2, "FP": 1, "FN": 2, "TN": 4 * 5 * 6 - 5, "n_pred": 3, "n_ref": 4,
    }  # fmt: skip
    assert metrics["Dice"] == pytest.approx(4 / 7)
    assert metrics["IoU"] == pytest.approx(2 / 5)


def test_distances_are_in_mm_along_the_axis_of_their_spacing():
    prediction, reference = volume((0, 0, 0)), volume((3, 0, 0))
    metrics = metrics_of(prediction, reference, spacing=(2.5, 1.0, 0.5))
    assert metrics["HD95"] == metrics["ASSD"] == pytest.approx(7.5)
    assert metrics["NSD"] == 0


def test_distances_to_a_line_that_is_one_voxel_too_long():
    # prediction 0..4, reference 0..3: from the prediction 0, 0, 0, 0, 1; back 0, 0, 0, 0.
    prediction = volume(*((0, 0, x) for x in range(5)))
    reference = volume(*((0, 0, x) for x in range(4)))
    metrics = metrics_of(prediction, reference, tolerance_mm=0.5)
    assert metrics["ASSD"] == pytest.approx(1 / 9)
    assert metrics["NSD"] == pytest.approx(8 / 9)
    assert metrics["HD95"] == pytest.approx(0.8)  # at 3.8 of 0..4, between the last two of 0, 0, 0, 0, 1


def test_a_distance_equal_to_the_tolerance_is_within_it():
    metrics = metrics_of(volume((0, 0, 0)), volume((0, 0, 5)), spacing=(1, 1, 0.4), tolerance_mm=2.0)
    assert metrics["NSD"] == 1


def test_the_surface_of_an_image_full_of_foreground_is_its_border():
    mask = np.ones((3, 4, 5), bool)
    assert np.count_nonzero(surface(mask)) == 3 * 4 * 5 - 1 * 2 * 3
    assert metrics_of(mask.astype(np.uint8), mask.astype(np.uint8))["HD95"] == 0


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_the_surface_of_a_2d_mask_is_its_outline_not_its_area(axis):
    square = np.zeros((9, 9), np.uint8)
    square[1:8, 1:8] = 1
    dot = np.zeros_like(square)
    dot[4, 4] = 1
    spacing = np.insert([1.0, 1.0], axis, 50.0)
    # In 3D every voxel of a single slice would be surface, the dot's own place in the square included.
    metrics = metrics_of(np.expand_dims(dot, axis), np.expand_dims(square, axis), spacing=spacing)
    assert metrics["ASSD"] > 3
    empty = metrics_of(np.expand_dims(dot * 0, axis), np.expand_dims(square, axis), spacing=spacing)
    assert empty["HD95"] == pytest.approx(math.hypot(9, 9))


def test_two_empty_masks_are_left_out():
    metrics = metrics_of(volume(), volume())
    assert all(math.isnan(metrics[key]) for key in ("Dice", "IoU", "HD95", "ASSD", "NSD"))
    assert metrics["TN"] == 4 * 5 * 6
    assert metrics["TP"] == metrics["FP"] == metrics["FN"] == 0


@pytest.mark.parametrize("missed", [True, False])
def test_a_missed_label_or_a_false_alarm_has_the_worst_value(missed):
    pair = (volume(), volume((1, 1, 1)))
    metrics = metrics_of(*(pair if missed else pair[::-1]), spacing=(3.0, 2.0, 1.0))
    assert metrics["Dice"] == metrics["IoU"] == metrics["NSD"] == 0
    assert metrics["HD95"] == metrics["ASSD"] == pytest.approx(math.sqrt(12**2 + 10**2 + 6**2))
    assert metrics["FN" if missed else "FP"] == 1


def test_regions_are_unions_of_labels_keyed_as_in_nnunet():
    labels = Labels(foreground={"whole": (1, 2), "core": (2,)}, regions_class_order=(1, 2))
    prediction, reference = volume((0, 0, 0), (0, 0, 1)), volume((0, 0, 0), (0, 0, 1))
    reference[0, 0, 1] = 2
    metrics = case_metrics(prediction, reference, labels, spacing=ISOTROPIC)
    assert list(metrics) == ["(1, 2)", "2"]
    assert metrics["(1, 2)"]["Dice"] == 1
    assert metrics["2"]["Dice"] == 0


def test_label_values_need_not_be_consecutive():
    labels = Labels(foreground={"a": (4,), "b": (255,)})
    reference = volume((0, 0, 0)) * 255
    metrics = case_metrics(reference, reference, labels, spacing=ISOTROPIC)
    assert metrics["255"]["Dice"] == 1
    assert math.isnan(metrics["4"]["Dice"])


def test_ignored_voxels_are_excluded_from_all_metrics():
    labels = Labels(foreground={"organ": (1,)}, ignore=2)
    reference, prediction = volume((1, 1, 1)), volume((1, 1, 1))
    reference[2:] = 2
    prediction[2:] = 1  # would be 60 false positives
    metrics = metrics_of(prediction, reference, labels)
    assert metrics["Dice"] == 1
    assert metrics["FP"] == 0
    assert metrics["TN"] == 2 * 5 * 6 - 1
    assert metrics["HD95"] == 0


def test_a_cut_by_ignored_voxels_is_no_surface():
    # Only slice 2 of 5 is annotated. If the cut were surface, each voxel of both squares would be, with most
    # of them shared, and the distances would be close to zero.
    labels = Labels(foreground={"organ": (1,)}, ignore=2)
    reference = np.full((5, 12, 12), 2, np.uint8)
    reference[2] = 0
    prediction = np.zeros((5, 12, 12), np.uint8)
    prediction[:, 1:11, 1:11] = 1
    reference[2, 3:9, 3:9] = 1
    flat = metrics_of(prediction[2:3], reference[2:3], ORGAN)
    cut = metrics_of(prediction, reference, labels)
    assert cut["ASSD"] == pytest.approx(flat["ASSD"])
    assert cut["ASSD"] > 2
    prediction[[0, 1, 3, 4]] = 0  # so that nothing but ignored voxels is beyond the masks
    assert metrics_of(prediction, reference, labels) == cut


def test_a_mask_without_any_surface_has_no_distances():
    labels = Labels(foreground={"organ": (1,)}, ignore=2)
    reference = np.full((3, 3, 3), 2, np.uint8)
    reference[1, 1, 1] = 1
    metrics = metrics_of(np.ones((3, 3, 3), np.uint8), reference, labels)
    assert metrics["Dice"] == 1
    assert all(math.isnan(metrics[key]) for key in ("HD95", "ASSD", "NSD"))


def test_arrays_of_different_shape_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        metrics_of(volume(), volume(shape=(4, 5, 7)))


shapes = st.one_of(
    hnp.array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6),
    st.tuples(st.just(1), st.integers(2, 8), st.integers(2, 8)),
)
spacings = st.tuples(*[st.floats(0.3, 8.0)] * 3)


@st.composite
def pairs(draw):
    shape = draw(shapes)
    values = st.sampled_from([0, 0, 1, 1, 1, 2])  # 2: ignored, in the reference
    prediction = draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    return prediction, draw(hnp.arrays(np.uint8, shape, elements=values)), draw(spacings)


def brute_force_surface(mask, ignored):
    """Voxels of `mask` with a neighbour that is neither in it nor ignored; spelled out voxel by voxel."""
    found = []
    for voxel in np.argwhere(mask):
        for axis, step in product(range(mask.ndim), (-1, 1)):
            neighbour = voxel.copy()
            neighbour[axis] += step
            outside = not 0 <= neighbour[axis] < mask.shape[axis]
            if outside or not (mask[tuple(neighbour)] or ignored[tuple(neighbour)]):
                found.append(voxel)
                break
    return np.array(found).reshape(-1, mask.ndim)


@settings(deadline=None, max_examples=150)
@given(pairs())
def test_distances_equal_brute_force(pair):
    prediction, reference, spacing = pair
    labels = Labels(foreground={"organ": (1,)}, ignore=2)
    kept = [axis for axis in range(3) if prediction.shape[axis] > 1]
    if len(kept) < 2:
        return
    ours, theirs = np.squeeze(prediction), np.squeeze(reference)
    ignored = theirs == 2
    steps = np.array(spacing)[kept]
    masks = [(array == 1) & ~ignored for array in (ours, theirs)]
    points = [brute_force_surface(mask, ignored) * steps for mask in masks]

    metrics = metrics_of(prediction, reference, labels, spacing)

    if not all(mask.any() for mask in masks) or not all(len(p) for p in points):
        return  # the rules for empty masks have their own tests
    table = np.linalg.norm(points[0][:, None] - points[1][None], axis=-1)
    there, back = table.min(1), table.min(0)
    assert metrics["HD95"] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-4)
    assert metrics["ASSD"] == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-4)
    within = np.concatenate([there, back])
    near = np.abs(within - 2.0) < 5e-3  # on the edge of the tolerance, rounding may go either way
    assert (within[~near] <= 2.0).sum() <= metrics["NSD"] * len(within) + 1e-6
    assert metrics["NSD"] * len(within) <= (within <= 2.0).sum() + near.sum() + 1e-6


@settings(deadline=None, max_examples=60)
@given(pairs())
def test_metrics_are_symmetric_and_perfect_for_equal_masks(pair):
    prediction, reference, spacing = pair
    reference = np.where(reference == 2, 0, reference)
    there, back = (
        metrics_of(prediction, reference, spacing=spacing),
        metrics_of(reference, prediction, spacing=spacing),
    )
    for key in ("Dice", "IoU", "TP", "TN", "HD95", "ASSD", "NSD"):
        assert there[key] == pytest.approx(back[key], nan_ok=True)
    same = metrics_of(reference, reference, spacing=spacing)
    if reference.any():
        assert (same["Dice"], same["NSD"], same["HD95"], same["ASSD"]) == (1, 1, 0, 0)


@settings(deadline=None, max_examples=40)
@given(pairs(), st.tuples(*[st.integers(0, 3)] * 6))
def test_padding_with_background_changes_only_the_true_negatives(pair, margin):
    prediction, reference, spacing = pair
    reference = np.where(reference == 2, 0, reference)
    if min(prediction.shape) == 1:
        return  # a slice would become a volume
    widths = [margin[:2], margin[2:4], margin[4:]]
    before = metrics_of(prediction, reference, spacing=spacing)
    after = metrics_of(np.pad(prediction, widths), np.pad(reference, widths), spacing=spacing)
    for key in {*METRICS} - {"TN", "HD95", "ASSD"}:
        assert before[key] == pytest.approx(after[key], nan_ok=True)
    if prediction.any() == reference.any():
        for key in ("HD95", "ASSD"):
            assert before[key] == pytest.approx(after[key], nan_ok=True)


def test_surface_distances_of_an_empty_mask_are_none():
    there, back = surface_distances(np.zeros((3, 3), bool), np.ones((3, 3), bool), (1.0, 1.0))
    assert there.size == back.size == 0
