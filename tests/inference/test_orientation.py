"""The same anatomy is segmented alike, whatever the order and direction of the axes it is stored with."""

from collections.abc import Callable
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from autocrossdim.data.itk import image_from_itk
from autocrossdim.data.orientation import Reorientation
from autocrossdim.inference.model import Model
from autocrossdim.inference.predictor import Predictor

STORED = "SPL"
CODES = [
    "".join(pair[sign] for pair, sign in zip(order, signs, strict=True))
    for order in permutations(("RL", "AP", "IS"))
    for signs in product((0, 1), repeat=3)
]


class Directional(nn.Module):
    """A network that tells every axis and direction apart, unless its predictions are averaged over mirrorings."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.fixture(scope="module")
def predictor(make_plan: Callable[..., Any]) -> Callable[..., Predictor]:
    def build(**fields: Any) -> Predictor:
        plan = make_plan(patch_size=(8, 8, 8), **fields)
        return Predictor([Model(plan, plan.configuration(), [Directional().eval()])], mirroring=False)

    return build


@pytest.fixture(scope="module")
def image() -> sitk.Image:
    """An image in the orientation `STORED`, with another size and spacing along each axis."""
    array = np.random.default_rng(0).normal(size=(7, 9, 11)).astype(np.float32)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((0.9, 1.1, 1.3))
    image.SetOrigin((5.0, -7.0, 3.0))
    return image


@pytest.mark.parametrize("code", CODES)
def test_each_of_48_orientations_gives_the_same_segmentation(
    code: str, image: sitk.Image, predictor: Callable[..., Predictor]
) -> None:
    one = predictor(orientation=STORED, transpose=(1, 0, 2))
    expected = one(image, probabilities=True)
    turned = sitk.DICOMOrient(image, code[::-1])
    assert image_from_itk(turned).geometry.orientation == code
    found = one(turned, probabilities=True)
    change = Reorientation.between(STORED, code)
    assert np.array_equal(found.label, change.apply(expected.label))
    assert np.array_equal(found.probabilities, change.apply(expected.probabilities))


def test_with_keep_orientation_the_stored_axes_are_used(image: sitk.Image, predictor: Callable[..., Predictor]) -> None:
    one = predictor(orientation=None)
    turned = sitk.DICOMOrient(image, "RPI")
    change = Reorientation.between(STORED, image_from_itk(turned).geometry.orientation)
    assert not np.array_equal(one(turned).label, change.apply(one(image).label))


def test_an_array_is_taken_to_have_the_orientation_of_the_plan(
    image: sitk.Image, predictor: Callable[..., Predictor]
) -> None:
    one = predictor(orientation=STORED)
    array = sitk.GetArrayFromImage(image)[None]
    assert np.array_equal(one(array, spacing=(1.3, 1.1, 0.9)).label, one(image).label)
