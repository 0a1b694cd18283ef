from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from autocrossdim.data.orientation import Reorientation, axis_name, orientation_code

CODES = [
    "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(("RL", "AP", "IS"))
    for signs in product((0, 1), repeat=3)
]
codes = st.sampled_from(CODES)


def direction_of(code: str) -> tuple[float, ...]:
    """Return the direction matrix of an orientation by ITK, whose letters are in the order (x, y, z)."""
    direction: tuple[float, ...] = sitk.DICOMOrient(sitk.Image(2, 3, 4, sitk.sitkUInt8), code[::-1]).GetDirection()
    return direction


@pytest.mark.parametrize("code", CODES)
def test_the_code_agrees_with_itk(code: str) -> None:
    assert orientation_code(direction_of(code)) == code


def test_an_oblique_image_gets_the_closest_orientation() -> None:
    angle = np.deg2rad(35)
    turned = (np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1)
    assert orientation_code(turned) == "SPL"


@given(codes, codes)
def test_a_change_is_that_of_itk(old: str, new: str) -> None:
    array = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    image = sitk.GetImageFromArray(array)
    image.SetDirection(direction_of(old))
    expected = sitk.GetArrayFromImage(sitk.DICOMOrient(image, new[::-1]))
    np.testing.assert_array_equal(Reorientation.between(old, new).apply(array), expected)


@given(codes, codes)
def test_a_change_leads_from_one_orientation_to_the_other_and_back(old: str, new: str) -> None:
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    change = Reorientation.between(old, new)
    turned = change.apply(array)
    assert turned.shape[1:] == change.permuted(array.shape[1:])
    assert np.array_equal(change.undo(turned), array)
    assert np.array_equal(Reorientation.between(new, old).apply(turned), array)


@given(codes, codes, st.permutations((0, 1, 2)))
def test_a_transposition_can_follow(old: str, new: str, transpose: list[int]) -> None:
    array = np.arange(3 * 4 * 5).reshape(3, 4, 5)
    change = Reorientation.between(old, new)
    both = change.then_transposed((transpose[0], transpose[1], transpose[2]))
    assert np.array_equal(both.apply(array), change.apply(array).transpose(transpose))
    assert np.array_equal(both.undo(both.apply(array)), array)


def test_unknown_orientations_are_left_as_they_are() -> None:
    assert Reorientation.between(None, "SPL") == Reorientation.between("SPL", None) == Reorientation()


def test_axes_have_anatomical_names() -> None:
    assert [axis_name(letter) for letter in "SPL"] == ["top-bottom", "front-back", "left-right"]
    assert axis_name("R") == axis_name("L")
