"""Augmentation: nnU-Net's list. Its numbers are the probabilities and ranges below.

Geometry is drawn first (`draw_affine`), so that only the voxels a patch needs are read; intensities are changed
by batchgenerators' transforms on the finished batch.
"""

import numpy as np
import torch
from batchgenerators.transforms.abstract_transforms import Compose
from batchgenerators.transforms.color_transforms import (
    BrightnessMultiplicativeTransform,
    ContrastAugmentationTransform,
    GammaTransform,
)
from batchgenerators.transforms.noise_transforms import GaussianBlurTransform, GaussianNoiseTransform
from batchgenerators.transforms.resample_transforms import SimulateLowResolutionTransform
from batchgenerators.transforms.spatial_transforms import MirrorTransform
from torch.nn import functional

P_ROTATE, P_SCALE = 0.2, 0.2
SCALES = (0.7, 1.4)
IN_PLANE_ASPECT = 3  # a patch this much longer than deep is only turned within its planes
MAX_ANGLE, MAX_ANGLE_IN_ONE_PLANE = np.pi / 6, np.pi  # 30 degrees about each axis, any angle in one plane


def draw_affine(patch: tuple[int, ...], random: np.random.Generator) -> np.ndarray | None:
    """Draw a rotation and scaling about the patch's centre.

    Args:
        patch: voxels an axis, 2 or 3 of them.
        random: source of the draw.

    Returns:
        Matrix (dims, dims) from output to input offsets, in voxels; None for the identity.
    """
    dims = len(patch)
    rotate, rescale = random.random() < P_ROTATE, random.random() < P_SCALE
    if not (rotate or rescale):
        return None
    matrix = np.eye(dims)
    flat = dims == 3 and max(patch) / min(patch) > IN_PLANE_ASPECT
    if rotate:
        planes = [(0, 1)] if dims == 2 else [(1, 2)] if flat else [(0, 1), (0, 2), (1, 2)]
        limit = MAX_ANGLE if len(planes) > 1 else MAX_ANGLE_IN_ONE_PLANE
        for a, b in planes:
            angle = random.uniform(-limit, limit)
            turn = np.eye(dims)
            turn[a, a] = turn[b, b] = np.cos(angle)
            turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
            matrix = matrix @ turn
    if rescale:
        # Below and above 1 are equally likely.
        factor = random.uniform(SCALES[0], 1) if random.random() < 0.5 else random.uniform(1, SCALES[1])
        factors = np.full(dims, factor)
        if flat:
            factors[0] = 1
        matrix = matrix * factors
    return matrix


def source_shape(patch: tuple[int, ...], matrix: np.ndarray | None) -> tuple[int, ...]:
    """Return the voxels an axis that must be read for a patch under a transformation."""
    if matrix is None:
        return patch
    half = np.abs(matrix) @ ((np.array(patch) - 1) / 2)
    return tuple(int(np.ceil(2 * h)) + 1 for h in half)


def apply_affine(
    image: np.ndarray, label: np.ndarray, patch: tuple[int, ...], matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Resample a region of `source_shape` to the patch: linear for the image, nearest for the label.

    Args:
        image: shape (C, *source).
        label: shape (*source), integers.
        patch: voxels an axis.
        matrix: from `draw_affine`.
    """
    offsets = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in patch], indexing="ij"), axis=-1)
    half = (np.array(image.shape[1:]) - 1) / 2
    # grid_sample wants x first, and -1..1 from the first to the last voxel's centre.
    grid = (offsets @ matrix.T / np.maximum(half, 0.5))[..., ::-1]
    where = torch.from_numpy(np.ascontiguousarray(grid, dtype=np.float32))[None]
    moved = functional.grid_sample(torch.from_numpy(image)[None], where, mode="bilinear", align_corners=True)
    values = torch.from_numpy(label.astype(np.float32))[None, None]
    moved_label = functional.grid_sample(values, where, mode="nearest", align_corners=True, padding_mode="border")
    return moved[0].numpy(), moved_label[0, 0].numpy().astype(label.dtype)


def intensity_transforms(dims: int, patch: tuple[int, ...]) -> Compose:
    """Return nnU-Net's intensity changes and mirroring for batches {"data": (B, C, ...), "seg": (B, K, ...)}."""
    flat = dims == 3 and max(patch) / min(patch) > IN_PLANE_ASPECT
    return Compose(
        [
            GaussianNoiseTransform(p_per_sample=0.1),
            GaussianBlurTransform((0.5, 1.0), different_sigma_per_channel=True, p_per_sample=0.2, p_per_channel=0.5),
            BrightnessMultiplicativeTransform(multiplier_range=(0.75, 1.25), p_per_sample=0.15),
            ContrastAugmentationTransform(p_per_sample=0.15),
            SimulateLowResolutionTransform(
                zoom_range=(0.5, 1),
                per_channel=True,
                p_per_channel=0.5,
                order_downsample=0,
                order_upsample=3,
                p_per_sample=0.25,
                ignore_axes=(0,) if flat else None,
            ),
            GammaTransform((0.7, 1.5), invert_image=True, per_channel=True, retain_stats=True, p_per_sample=0.1),
            GammaTransform((0.7, 1.5), invert_image=False, per_channel=True, retain_stats=True, p_per_sample=0.3),
            MirrorTransform(axes=tuple(range(dims))),
        ]
    )
