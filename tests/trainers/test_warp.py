import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocrossdim.system.device import CPU
from trainers.strength import STANDARD, STRONG, Strength
from trainers.warp import Warp, _grid, draw_warp, source_shape
from trainers.warp import apply_warp as apply_to_tensor

PATCHES = [(8, 8), (30, 12), (16, 12, 10), (3, 20, 20)]


def apply_warp(
    image: np.ndarray, label: np.ndarray, patch: tuple[int, ...], warp: Warp
) -> tuple[np.ndarray, np.ndarray]:
    moved, moved_label = apply_to_tensor(torch.from_numpy(image), label, patch, warp)
    return moved.numpy(), moved_label


def quarter_turn() -> Warp:
    return Warp(np.array([[0.0, -1.0], [1.0, 0.0]]))


def drawn(patch: tuple[int, ...], count: int = 300, strength: Strength = STANDARD) -> list[Warp | None]:
    return [draw_warp(patch, np.random.default_rng(seed), strength) for seed in range(count)]


def test_a_quarter_turn_is_exact() -> None:
    image = np.random.default_rng(0).normal(size=(1, 9, 9)).astype(np.float32)
    label = np.arange(81).reshape(9, 9)
    turned, turned_label = apply_warp(image, label, (9, 9), quarter_turn())
    np.testing.assert_allclose(turned[0], np.rot90(image[0], -1), atol=1e-5)
    np.testing.assert_array_equal(turned_label, np.rot90(label, -1))


def test_every_slice_of_a_flat_patch_is_turned_alike() -> None:
    image = np.random.default_rng(0).normal(size=(2, 2, 9, 9)).astype(np.float32)
    label = np.arange(162).reshape(2, 9, 9)
    turned, turned_label = apply_warp(image, label, (2, 9, 9), quarter_turn())
    np.testing.assert_allclose(turned, np.rot90(image, -1, axes=(2, 3)), atol=1e-5)
    np.testing.assert_array_equal(turned_label, np.rot90(label, -1, axes=(1, 2)))


def test_a_volume_is_turned_about_the_axis_that_was_drawn() -> None:
    image = np.random.default_rng(0).normal(size=(1, 5, 9, 9)).astype(np.float32)
    matrix = np.eye(3)
    matrix[1:, 1:] = quarter_turn().matrix
    turned, _ = apply_warp(image, np.zeros((5, 9, 9), dtype=np.uint8), (5, 9, 9), Warp(matrix))
    np.testing.assert_allclose(turned, np.rot90(image, -1, axes=(2, 3)), atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(PATCHES), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 1.0]))
def test_what_is_read_holds_the_whole_warped_patch(patch: tuple[int, ...], seed: int, elastic: float) -> None:
    warp = draw_warp(patch, np.random.default_rng(seed), Strength(elastic=elastic))
    source = source_shape(patch, warp)
    image = np.ones((1, *source), dtype=np.float32)
    if warp is not None:
        image, label = apply_warp(image, np.ones(source, dtype=np.int16), patch, warp)
        assert label.shape == patch
        assert label.all()
    # Voxels from beyond what was read would be 0.
    np.testing.assert_allclose(image, 1, atol=1e-4)
    assert image.shape == (1, *patch)


def test_what_is_read_is_no_more_than_the_warp_needs() -> None:
    assert source_shape((8, 40, 40), None) == (8, 40, 40)
    assert source_shape((8, 40, 40), Warp(np.eye(2) * 0.5)) == (8, 21, 21)
    assert source_shape((40, 40, 40), Warp(np.eye(3) * 0.5)) == (21, 21, 21)


def test_labels_are_never_made_up() -> None:
    label = np.random.default_rng(0).choice([0, 7, 300], size=(24, 24, 24)).astype(np.uint16)
    warp = Warp(np.eye(3) * 0.8)
    _, warped = apply_warp(np.zeros((1, 24, 24, 24), dtype=np.float32), label, (20, 20, 20), warp)
    assert set(np.unique(warped)) <= {0, 7, 300}
    assert warped.dtype == np.uint16


@pytest.mark.parametrize(("patch", "largest"), [((20, 20), 180), ((30, 10), 15), ((4, 20, 20), 180)])
def test_angles_in_one_plane_are_as_wide_as_nnunets(patch: tuple[int, ...], largest: float) -> None:
    turned = [warp.matrix for warp in drawn(patch) if warp is not None and warp.matrix[0, 1] != 0]
    seen = np.degrees([np.arctan2(matrix[1, 0], matrix[0, 0]) for matrix in turned])
    assert 0.8 * largest < seen.max() <= largest
    assert -largest <= seen.min() < -0.8 * largest


@pytest.mark.parametrize(("patch", "mirrored"), [((20, 20), (1,)), ((20, 20), ()), ((4, 20, 20), (0, 1))])
def test_patches_with_an_axis_that_is_not_mirrored_are_not_turned_upside_down(
    patch: tuple[int, ...], mirrored: tuple[int, ...]
) -> None:
    draws = [
        draw_warp(patch, np.random.default_rng(seed), Strength(affine=1.0), mirrored=mirrored) for seed in range(300)
    ]
    seen = np.degrees([np.arctan2(warp.matrix[1, 0], warp.matrix[0, 0]) for warp in draws if warp is not None])
    assert 25 < np.abs(seen).max() <= 30


def test_an_axis_through_the_slices_does_not_limit_the_angle_in_them() -> None:
    draws = [draw_warp((4, 20, 20), np.random.default_rng(seed), mirrored=(1, 2)) for seed in range(300)]
    assert max(abs(np.arctan2(warp.matrix[1, 0], warp.matrix[0, 0])) for warp in draws if warp is not None) > np.pi / 2


def test_volumes_are_turned_by_30_degrees_at_most() -> None:
    turned = [warp.matrix / np.cbrt(np.linalg.det(warp.matrix)) for warp in drawn((20, 20, 20)) if warp is not None]
    seen = np.degrees([np.arcsin(matrix[2, 0]) for matrix in turned])  # the second of three turns
    assert 24 < seen.max() <= 30
    assert -30 <= seen.min() < -24


@pytest.mark.parametrize(("patch", "dims"), [((4, 32, 32), 2), ((11, 32, 32), 3), ((32, 4, 4), 3)])
def test_only_patches_with_a_thin_first_axis_stay_in_plane(patch: tuple[int, ...], dims: int) -> None:
    assert {len(warp.matrix) for warp in drawn(patch) if warp is not None} == {dims}


def test_scaling_covers_its_range_and_is_as_frequent_as_nnunets() -> None:
    factors = np.array([1.0 if w is None else np.sqrt(np.linalg.det(w.matrix)) for w in drawn((20, 20), 2000)])
    scaled = factors[np.abs(factors - 1) > 1e-9]
    assert 0.7 <= scaled.min() < 0.75
    assert 1.35 < scaled.max() <= 1.4
    assert 0.16 < len(scaled) / 2000 < 0.24
    assert 0.32 < np.mean([w is not None for w in drawn((20, 20), 2000)]) < 0.40  # 1 - 0.8 * 0.8
    always = drawn((20, 20), 50, Strength(affine=1.0))
    assert all(warp is not None and warp.matrix[0, 1] != 0 for warp in always)
    assert all(warp is None for warp in drawn((20, 20), 50, Strength(affine=0.0)))


def test_strong_augmentation_moves_more_patches_and_further() -> None:
    warps = drawn((20, 20), 1000, STRONG)
    factors = np.array([1.0 if warp is None else np.sqrt(np.linalg.det(warp.matrix)) for warp in warps])
    assert 0.5 <= factors.min() < 0.55
    assert 1.5 < factors.max() <= 1.6
    assert 0.85 < np.mean([warp is not None for warp in warps]) < 0.92  # 1 - 0.4 * 0.4 * 0.7
    assert 0.26 < np.mean([warp is not None and warp.bend is not None for warp in warps]) < 0.34


@pytest.mark.parametrize("patch", PATCHES)
def test_bending_is_off_in_nnunets_list_and_does_not_fold(patch: tuple[int, ...]) -> None:
    assert all(warp is None or warp.bend is None for warp in drawn(patch))
    for seed in range(20):
        warp = draw_warp(patch, np.random.default_rng(seed), Strength(elastic=1.0))
        assert warp is not None
        axes = patch[-len(warp.matrix) :]
        source = source_shape(patch, warp)[-len(axes) :]
        identity = Warp(np.eye(len(axes)), warp.bend)
        # Positions in voxels, axes in order z, y, x.
        where = _grid(axes, source, identity, CPU).numpy()[..., ::-1] * (np.array(source) - 1) / 2
        for axis in range(len(axes)):
            assert (np.diff(where[..., axis], axis=axis) > 0).all()
