import numpy as np
import pytest

from planners.spacing import anisotropy, resampled_shapes, target_spacing


def target(spacings: list[tuple[float, ...]], shape: tuple[int, ...]) -> tuple[float, ...]:
    return target_spacing(np.array(spacings), np.array([shape] * len(spacings)))


def test_the_median_where_axes_are_alike() -> None:
    assert target([(1, 1, 1), (2, 1, 1), (1.5, 1, 3)], (100, 100, 100)) == (1.5, 1, 1)


def test_the_tenth_percentile_on_a_coarse_axis_with_few_voxels() -> None:
    cases = [(z, 1.0, 1.0) for z in (4.0, 5.0, 6.0, 7.0, 8.0)]
    assert target(cases, (20, 200, 200)) == pytest.approx((4.4, 1, 1))


@pytest.mark.parametrize(
    ("why", "spacing", "shape"),
    [
        ("just three times coarser is not coarse", 3.0, (20, 200, 200)),
        ("as many as a third of the voxels are not few", 6.0, (67, 200, 200)),
    ],
)
def test_otherwise_the_median(why: str, spacing: float, shape: tuple[int, ...]) -> None:
    cases = [(spacing / 2, 1.0, 1.0), (spacing, 1.0, 1.0), (spacing, 1.0, 1.0)]
    assert target(cases, shape)[0] == spacing, why


def test_the_percentile_is_never_finer_than_the_other_axes() -> None:
    cases = [(0.2, 1.0, 1.0)] + [(5.0, 1.0, 1.0)] * 4
    assert target(cases, (20, 200, 200))[0] >= 1.0


def test_anisotropy_is_largest_over_smallest() -> None:
    assert anisotropy(np.array([6.0, 1.5, 2.0])) == 4


def test_shapes_at_the_target_spacing() -> None:
    spacings, shapes = np.array([(2.0, 1, 1), (4.0, 1, 1)]), np.array([(10, 50, 50), (10, 50, 50)])
    assert resampled_shapes(spacings, shapes, (2.0, 1.0, 0.5)).tolist() == [[10, 50, 100], [20, 50, 100]]
    assert resampled_shapes(spacings, shapes, (1.0, 0.5)).tolist() == [[10, 50, 100], [10, 50, 100]]


@pytest.mark.parametrize(
    ("what", "spacing", "shape"),
    [
        ("hippocampus", (1, 1, 1), (36, 50, 35)),
        ("brain", (1, 1, 1), (138, 170, 138)),
        ("liver", (1, 0.767, 0.767), (432, 512, 512)),
        ("prostate", (3.6, 0.625, 0.625), (20, 320, 320)),
        ("cardiac", (5, 1.5625, 1.5625), (9, 256, 216)),
        ("colon", (5, 0.8, 0.8), (49, 512, 512)),
    ],
)
def test_well_known_datasets_get_nnunets_spacing(what: str, spacing: tuple[float, ...], shape: tuple[int, ...]) -> None:
    # Half of the cases have slices twice as far apart: the median on near-cubic data, nnU-Net's percentile elsewhere.
    found = target([spacing] * 3 + [(2 * spacing[0], *spacing[1:])] * 2, shape)
    assert found == pytest.approx(spacing), what
