from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st

from autocrossdim.data.orientation import (
    Reorientation,
    axis_name,
    is_orientation,
    orientation_code,
    reoriented_code,
)

CODES = [
    "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(("RL", "AP", "IS"))
    for signs in product((0, 1), repeat=3)
]
codes = st.sampled_from(CODES)


def test_there_are_48_orientations() -> None:
    assert len(set(CODES)) == 48
    assert all(map(is_orientation, CODES))
    assert not any(map(is_orientation, ("SPX", "SPP", "SP", "", "SPLR")))


@pytest.mark.parametrize("code", CODES)
def test_the_code_agrees_with_itk(code: str) -> None:
    image = sitk.Image(2, 3, 4, sitk.sitkUInt8)
    # ITK's codes name the directions that axes come from or go to, in the order (x, y, z), depending on its version:
    # the direction matrix it derives is compared, not the letters.
    oriented = sitk.DICOMOrient(image, code[::-1])
    assert orientation_code(oriented.GetDirection()) == code


def test_an_oblique_image_gets_the_closest_orientation() -> None:
    angle = np.deg2rad(35)
    turned = (np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, 1)
    assert orientation_code(turned) == "SPL"


@given(codes, codes)
def test_a_change_leads_from_one_orientation_to_the_other_and_back(old: str, new: str) -> None:
    array = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    change = Reorientation.between(old, new)
    turned = change.apply(array)
    assert reoriented_code(old, change) == new
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
