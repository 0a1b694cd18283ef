import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.augment import apply_affine, draw_affine, intensity_transforms, source_shape


def quarter_turn() -> np.ndarray:
    return np.array([[0.0, -1.0], [1.0, 0.0]])


def test_a_quarter_turn_is_exact() -> None:
    image = np.random.default_rng(0).normal(size=(1, 9, 9)).astype(np.float32)
    label = np.arange(81).reshape(9, 9)
    turned, turned_label = apply_affine(image, label, (9, 9), quarter_turn())
    np.testing.assert_allclose(turned[0], np.rot90(image[0], -1), atol=1e-5)
    np.testing.assert_array_equal(turned_label, np.rot90(label, -1))


@settings(max_examples=50, deadline=None)
@given(st.sampled_from([(8, 8), (16, 12, 10), (3, 20, 20)]), st.integers(0, 2**32 - 1))
def test_what_is_read_holds_the_whole_turned_patch(patch: tuple[int, ...], seed: int) -> None:
    random = np.random.default_rng(seed)
    matrix = draw_affine(patch, random)
    source = source_shape(patch, matrix)
    image = np.ones((1, *source), dtype=np.float32)
    if matrix is not None:
        image, label = apply_affine(image, np.ones(source, dtype=np.int16), patch, matrix)
        assert label.all()
    # Voxels from beyond what was read would be 0.
    np.testing.assert_allclose(image, 1, atol=1e-4)
    assert image.shape == (1, *patch)


def test_flat_patches_are_only_turned_in_plane() -> None:
    drawn = [draw_affine((4, 32, 32), np.random.default_rng(seed)) for seed in range(60)]
    matrices = [matrix for matrix in drawn if matrix is not None]
    assert len(matrices) > 10
    for matrix in matrices:
        np.testing.assert_array_equal(matrix[0], [1, 0, 0])
        np.testing.assert_array_equal(matrix[:, 0], [1, 0, 0])


@pytest.mark.parametrize("patch", [(16, 16), (8, 16, 16), (2, 16, 16)])
def test_intensity_changes_keep_shape_and_label_values(patch: tuple[int, ...]) -> None:
    transform = intensity_transforms(len(patch), patch)
    np.random.seed(0)  # noqa: NPY002
    for _ in range(5):
        data = np.random.default_rng(0).normal(size=(2, 3, *patch)).astype(np.float32)
        seg = np.random.default_rng(0).integers(-1, 3, size=(2, 1, *patch)).astype(np.int16)
        result = transform(data=data, seg=seg)
        assert result["data"].shape == (2, 3, *patch)
        assert np.isfinite(result["data"]).all()
        assert np.bincount(result["seg"].ravel() + 1).tolist() == np.bincount(seg.ravel() + 1).tolist()
