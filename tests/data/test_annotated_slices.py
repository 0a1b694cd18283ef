"""Slices without any label count as not annotated, however the image is stored."""

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from autocrossdim.data.annotated_slices import labelled_slices, mark_unannotated, read_annotation, slice_axis
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.orientation import Reorientation
from autocrossdim.preprocessing.case import preprocess
from autocrossdim.records.labels import Labels

SPARSE = Labels(foreground={"organ": (1,), "lesion": (2,)}, unannotated_slices="empty")
NOT_ANNOTATED = 3
CODES = [
    "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(("RL", "AP", "IS"))
    for signs in product((0, 1), repeat=3)
]

volumes = arrays(np.uint8, st.tuples(*[st.integers(2, 4)] * 3), elements=st.sampled_from([0, 0, 0, 1, 2]))


def geometry(array: np.ndarray, spacing: tuple[float, float, float] = (3.0, 1.0, 1.0)) -> Geometry:
    z, y, x = array.shape
    return Geometry((z, y, x), spacing, (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 3)


def test_slices_without_labels_are_marked_and_no_others() -> None:
    label = np.zeros((4, 2, 2), np.uint8)
    label[1, 0, 0], label[3, 1, 1] = 1, 2
    marked = mark_unannotated(label, geometry(label), SPARSE)
    np.testing.assert_array_equal(marked[[0, 2]], np.full((2, 2, 2), NOT_ANNOTATED))
    np.testing.assert_array_equal(marked[[1, 3]], label[[1, 3]])
    assert not label[[0, 2]].any(), "the input array is not modified"


@given(volumes, st.sampled_from(CODES), st.sampled_from(CODES))
def test_the_same_slices_are_marked_in_every_orientation(label: np.ndarray, stored: str, common: str) -> None:
    change = Reorientation.between(stored, common)
    turned = change.apply(label)
    expected = change.apply(mark_unannotated(label, geometry(label), SPARSE))
    spacing = change.permuted((3.0, 1.0, 1.0))
    np.testing.assert_array_equal(mark_unannotated(turned, geometry(turned, spacing), SPARSE), expected)


def test_slices_of_isotropic_images_lie_across_the_first_axis_of_the_file() -> None:
    label = np.zeros((2, 3, 4), np.uint8)
    assert slice_axis(geometry(label, (1.0, 1.0, 1.0))) == 0
    assert slice_axis(geometry(label, (1.0, 1.0, 1.001))) == 0, "rounding of a header"
    assert slice_axis(geometry(label, (1.0, 1.0, 1.2))) == 2
    assert slice_axis(geometry(label[:1], (1.0, 2.0, 2.0))) == 0, "a single slice"


@given(volumes)
def test_without_the_key_every_slice_is_annotated(label: np.ndarray) -> None:
    labels = Labels(foreground={"organ": (1,), "lesion": (2,)})
    assert mark_unannotated(label, geometry(label), labels) is label
    assert labelled_slices(label, geometry(label)).shape == (len(label),)


def test_a_declared_ignore_value_is_used_and_a_value_above_255_fits() -> None:
    label = np.zeros((2, 2, 2), np.uint8)
    label[0, 0, 0] = 1
    declared = Labels(foreground={"organ": (1,)}, ignore=9, unannotated_slices="empty")
    assert (mark_unannotated(label, geometry(label), declared)[1] == 9).all()
    highest = Labels(foreground={"organ": (1,), "last": (255,)}, unannotated_slices="empty")
    assert (mark_unannotated(label, geometry(label), highest)[1] == 256).all()


@pytest.mark.parametrize("code", ["LPS", "RAI", "SLP", "AIR"])
@pytest.mark.parametrize("keep_orientation", [False, True])
def test_a_preprocessed_case_is_marked_alike_however_it_is_stored(
    code: str, keep_orientation: bool, tmp_path: Path, make_plan: Callable[..., Any], write_image: Callable[..., Path]
) -> None:
    label = np.zeros((5, 6, 7), np.uint8)
    label[1, 2, 3], label[4, 1:3, 2] = 1, 2
    reference = write_image(tmp_path / "label.nii.gz", label, (3, 1, 1))
    stored = sitk.DICOMOrient(sitk.ReadImage(str(reference)), code)
    sitk.WriteImage(stored, str(tmp_path / "turned.nii.gz"))
    array, place = read_annotation(tmp_path / "turned.nii.gz", SPARSE)
    # Without reorientation, the plan has the axis order of the stored image.
    transpose = tuple(sorted(range(3), key=lambda axis: -place.spacing[axis])) if keep_orientation else (0, 1, 2)
    plan = make_plan(
        spacing=(3, 1, 1), labels=SPARSE, orientation=None if keep_orientation else "SPL", transpose=transpose
    )
    image = np.ones((1, *array.shape), np.float32)
    case = preprocess(image, place.spacing, plan, plan.configuration(), array, orientation=place.orientation)
    assert case.label is not None
    annotated = (case.label != NOT_ANNOTATED).any(axis=(1, 2))
    assert annotated.sum() == 2
    assert set(np.unique(case.label[annotated])) == {0, 1, 2}
    if not keep_orientation:
        np.testing.assert_array_equal(case.label, mark_unannotated(label, geometry(label), SPARSE))
