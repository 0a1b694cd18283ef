from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from autocrossdim.inference.restore import slices_at_original_resolution
from autocrossdim.preprocessing.case import preprocess
from autocrossdim.preprocessing.resample import orders_for, resample_image, resample_label, shape_for

SIZES = st.tuples(*[st.integers(1, 14)] * 3)


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, st.integers(0, 2**32 - 1))
def test_images_equal_what_nnunet_uses(shape: tuple[int, int, int], new_shape: tuple[int, int, int], seed: int) -> None:
    image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    expected = resize(image.astype(np.float64), new_shape, order=3, mode="edge", anti_aliasing=False, clip=True)
    found = resample_image(image[None], new_shape)[0]
    np.testing.assert_allclose(found, expected, atol=5e-6)


def test_labels_equal_one_hot_linear_interpolation() -> None:
    label = np.random.default_rng(0).integers(0, 3, (6, 7, 8))
    shares = np.stack(
        [resize((label == v).astype(float), (9, 5, 12), order=1, mode="edge", anti_aliasing=False) for v in range(3)]
    )
    found = resample_label(label, (9, 5, 12))
    clear = np.sort(shares, axis=0)[-1] > np.sort(shares, axis=0)[-2] + 1e-5
    assert (found == shares.argmax(axis=0))[clear].all()


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, st.integers(0, 2**32 - 1))
def test_labels_never_get_a_value_that_was_not_there(
    shape: tuple[int, int, int], new_shape: tuple[int, int, int], seed: int
) -> None:
    label = np.random.default_rng(seed).choice([0, 7, 200], size=shape).astype(np.uint8)
    found = resample_label(label, new_shape)
    assert found.shape == new_shape
    assert set(np.unique(found)) <= set(np.unique(label))


def test_the_same_shape_is_the_same_image() -> None:
    image = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    assert resample_image(image, (3, 4, 5)) is image


@pytest.mark.parametrize(
    ("spacing", "target", "orders"),
    [
        ((1, 1, 1), (2, 2, 2), (3, 3, 3)),
        ((5, 1, 1), (1, 1, 1), (0, 3, 3)),
        ((1, 1, 1), (5, 1, 1), (0, 3, 3)),
        ((1, 1, 4), (1, 1, 1), (3, 3, 0)),
        ((3, 1, 1), (3, 1, 1), (3, 3, 3)),
        ((5, 5, 1), (5, 5, 1), (3, 3, 3)),
        ((4, 4, 1), (1, 6, 1), (3, 3, 3)),
    ],
)
def test_only_one_much_coarser_axis_is_not_interpolated(spacing, target, orders) -> None:  # type: ignore[no-untyped-def]
    assert orders_for(3, spacing, target, 9) == orders


@pytest.mark.parametrize("spacing", [(1, 4, 1), (1, 4, 3.9), (5, 1, 1), (1, 0.1, 0.1)])
def test_lines_and_columns_of_a_single_slice_are_interpolated(spacing: tuple[float, float, float]) -> None:
    """As in nnU-Net, where 2D images have a spacing of 999 across; here, it is 1."""
    assert orders_for(3, spacing, (1, 1, 1), 1) == (3, 3, 3)
    assert orders_for(1, (1, 1, 1), spacing, 1) == (1, 1, 1)


def test_a_picture_with_high_pixels_is_interpolated_there_and_back(make_plan: Callable[..., Any]) -> None:
    plan = make_plan(2, (1.0, 1.0))
    ramp = np.arange(1, 9, dtype=np.float32)[None, None, :, None] * np.ones((1, 1, 1, 6), np.float32)
    case = preprocess(ramp, (1.0, 4.0, 1.0), plan, plan.configuration())
    lines = case.image[0, 0, :, 0]
    assert len(lines) == 32
    np.testing.assert_allclose(np.diff(lines[8:24]), 0.25, atol=0.02)
    (back,) = slices_at_original_resolution([torch.from_numpy(case.image)], case.placement)
    np.testing.assert_allclose(back[0, :, 0], ramp[0, 0, :, 0], atol=0.2)


def test_shapes_follow_the_spacing_and_keep_a_voxel() -> None:
    assert shape_for((10, 20, 1), (2.0, 1.0, 1.0), (1.0, 2.0, 9.0)) == (20, 10, 1)
