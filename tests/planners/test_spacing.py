from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from planners.spacing import CaseSizes, axis_order, coarser_spacing, target_spacing

Spacing = tuple[float, ...]


def sizes(spacings: Sequence[Spacing], shape: tuple[int, ...]) -> CaseSizes:
    return CaseSizes(np.array(spacings, dtype=float), np.array([shape] * len(spacings)))


def test_target_is_the_median_where_axes_are_alike() -> None:
    assert target_spacing(sizes([(1, 1, 1), (2, 1, 1), (1.5, 1, 3)], (100, 100, 100))) == (1.5, 1, 1)


def test_target_is_the_tenth_percentile_on_a_coarse_axis_with_few_voxels() -> None:
    cases = [(z, 1.0, 1.0) for z in (4.0, 5.0, 6.0, 7.0, 8.0)]
    assert target_spacing(sizes(cases, (20, 200, 200))) == pytest.approx((4.4, 1, 1))


@pytest.mark.parametrize(
    ("why", "spacing", "shape"),
    [
        ("exactly three times coarser is not coarse", 3.0, (20, 200, 200)),
        ("a third of the voxels is not few", 6.0, (67, 200, 200)),
    ],
)
def test_target_is_the_median_otherwise(why: str, spacing: float, shape: tuple[int, ...]) -> None:
    cases = [(spacing / 2, 1.0, 1.0), (spacing, 1.0, 1.0), (spacing, 1.0, 1.0)]
    assert target_spacing(sizes(cases, shape))[0] == spacing, why


def test_percentile_is_never_finer_than_the_other_axes() -> None:
    cases = [(0.2, 1.0, 1.0)] + [(5.0, 1.0, 1.0)] * 4
    assert target_spacing(sizes(cases, (20, 200, 200)))[0] >= 1.0


def test_computing_the_target_leaves_the_sizes_as_they_are() -> None:
    one_case = sizes([(5.0, 1.0, 1.0)], (20, 200, 200))
    target_spacing(one_case)
    assert one_case.spacings.tolist() == [[5.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("spacing", "growth", "coarser"),
    [
        ((1.0, 1.0, 0.8), 8.0, (2.0, 2.0, 1.6)),
        ((6.0, 1.0, 1.0), 4.0, (6.0, 2.0, 2.0)),
        ((6.0, 1.0, 1.0), 72.0, (12.0, 6.0, 6.0)),  # 3 times in the plane, then 2 times along every axis
        ((6.0, 1.0, 2.0), 4.0, (6.0, 8 / 3, 3.0)),
    ],
)
def test_thick_slices_are_coarsened_last(spacing: Any, growth: float, coarser: Spacing) -> None:
    found = coarser_spacing(spacing, growth)
    assert found == pytest.approx(coarser)
    assert np.prod(found) == pytest.approx(growth * np.prod(spacing))


def test_anisotropy_is_the_largest_over_the_smallest_median_spacing() -> None:
    assert sizes([(6.0, 1.5, 2.0), (6.0, 1.5, 2.0), (60.0, 0.1, 2.0)], (9, 9, 9)).anisotropy == 4


def test_shapes_at_the_target_spacing() -> None:
    two_cases = sizes([(2.0, 1, 1), (4.0, 1, 1)], (10, 50, 50))
    assert two_cases.resampled((2.0, 1.0, 0.5)).tolist() == [[10, 50, 100], [20, 50, 100]]
    assert two_cases.resampled((1.0, 0.5)).tolist() == [[10, 50, 100], [10, 50, 100]], "2D keeps the slices"


@pytest.mark.parametrize(
    ("spacing", "order"),
    [((1, 1, 1), (0, 1, 2)), ((1, 1, 5), (2, 0, 1)), ((1, 5, 1), (1, 0, 2)), ((1, 3, 3), (1, 0, 2))],
)
def test_the_coarsest_axis_comes_first(described: Callable[..., Any], spacing: Spacing, order: tuple[int, ...]) -> None:
    _, fingerprint = described(spacing, (50, 50, 50))
    assert axis_order(fingerprint) == order


def test_2d_images_are_never_transposed(described: Callable[..., Any]) -> None:
    # A 2D image has a spacing of 1 mm across its single slice, which is finer than these pixels.
    _, fingerprint = described((1.0, 1.5, 1.2), (1, 256, 256))
    assert axis_order(fingerprint) == (0, 1, 2)


def test_sizes_follow_the_axis_order(described: Callable[..., Any]) -> None:
    _, fingerprint = described((1, 2, 5), (30, 40, 50), cases=3)
    reordered = CaseSizes.of(fingerprint, (2, 0, 1))
    assert reordered.spacings.tolist() == [[5, 1, 2]] * 3
    assert reordered.shapes.tolist() == [[50, 30, 40]] * 3


@pytest.mark.parametrize(
    ("dataset", "spacing", "shape"),
    [
        ("hippocampus", (1, 1, 1), (36, 50, 35)),
        ("brain", (1, 1, 1), (138, 170, 138)),
        ("liver", (1, 0.767, 0.767), (432, 512, 512)),
        ("prostate", (3.6, 0.625, 0.625), (20, 320, 320)),
        ("cardiac", (5, 1.5625, 1.5625), (9, 256, 216)),
        ("colon", (5, 0.8, 0.8), (49, 512, 512)),
    ],
)
def test_well_known_datasets_get_nnunets_spacing(dataset: str, spacing: Spacing, shape: tuple[int, ...]) -> None:
    # Slices of two in five cases are twice as far apart, which changes neither the median nor the 10th percentile.
    cases = [spacing] * 3 + [(2 * spacing[0], *spacing[1:])] * 2
    assert target_spacing(sizes(cases, shape)) == pytest.approx(spacing), dataset
