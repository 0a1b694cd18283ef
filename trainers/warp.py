"""The spatial transform of a training patch: rotation, scaling, elastic deformation.

It is drawn first (`draw_warp`), so that only the voxels it needs are read (`source_shape`). Rotation and scaling are
nnU-Net's (`nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size` of version 2.8.1). All randomness
comes from the generator that is passed in; torch does the computation.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainers.strength import STANDARD, Strength

IN_PLANE_ASPECT = 3.0  # a patch whose first axis is shorter by more than this is rotated in-plane only ("dummy 2D")
LONG_ASPECT = 1.5  # a slice with a larger aspect ratio is rotated by small angles only
ANGLE_3D, ANGLE_LONG_2D, ANGLE_2D = np.pi / 6, np.pi / 12, np.pi  # largest angle about each axis, in both directions

# Elastic deformation is a cubic B-spline on this many intervals per axis. It cannot fold as long as no control point
# moves by more than 0.48 (2D) or 0.40 (3D) of an interval (Choi and Lee, Graphical Models 62, 2000).
BEND_INTERVALS = 4
BEND_LIMIT = {2: 0.48, 3: 0.40}


@dataclass(frozen=True)
class Warp:
    """Spatial transform of a patch along the axes (Y, X) or (Z, Y, X).

    Attributes:
        matrix: Maps offsets from the centre of the patch to offsets in the source, in voxels, shape (dims, dims).
        bend: Displacements of the control points in voxels, applied before the matrix, shape (dims, *control points);
            None without elastic deformation.
    """

    matrix: np.ndarray
    bend: np.ndarray | None = None


def is_flat(patch: tuple[int, ...]) -> bool:
    """Return whether a 3D patch is augmented as a stack of slices, by nnU-Net's rule for "dummy 2D"."""
    return len(patch) == 3 and max(patch) / patch[0] > IN_PLANE_ASPECT


def _warped(patch: tuple[int, ...]) -> tuple[int, ...]:
    return patch[1:] if is_flat(patch) else patch


def draw_warp(
    patch: tuple[int, ...],
    random: np.random.Generator,
    strength: Strength = STANDARD,
    *,
    mirrored: Collection[int] | None = None,
) -> Warp | None:
    """Draw a rotation, a scaling and an elastic deformation about the centre of a patch.

    Args:
        patch: Patch size in voxels, 2 or 3 axes.
        random: Source of randomness.
        strength: How often and how far patches are changed.
        mirrored: Axes of the patch that may be mirrored; None for all.

    Returns:
        The transform; None if nothing was drawn.
    """
    axes = _warped(patch)
    dims = len(axes)
    rotate, rescale, elastic = random.random(3) < (strength.affine, strength.affine, strength.elastic)
    if not (rotate or rescale or elastic):
        return None
    matrix = np.eye(dims)
    if rotate:
        for a, b in [(0, 1)] if dims == 2 else [(0, 1), (0, 2), (1, 2)]:
            limit = _largest_angle(patch, mirrored)
            angle = random.uniform(-limit, limit)
            turn = np.eye(dims)
            turn[a, a] = turn[b, b] = np.cos(angle)
            turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
            matrix = matrix @ turn
    if rescale:
        matrix = matrix * random.uniform(*strength.scales)
    bend = None
    if elastic:
        limits = random.random() * BEND_LIMIT[dims] * (np.array(axes) - 1) / BEND_INTERVALS
        bend = random.uniform(-1, 1, (dims, *[BEND_INTERVALS + 3] * dims)) * limits.reshape(-1, *[1] * dims)
    return Warp(matrix, bend)


def _largest_angle(patch: tuple[int, ...], mirrored: Collection[int] | None) -> float:
    """Return the largest angle of a rotation, in radians.

    An axis is not mirrored if only the position along it distinguishes two labels. A half turn would swap them as well,
    so slices with such an axis are rotated only a little. nnU-Net rotates all slices by any angle.
    """
    if len(patch) == 2 and max(patch) / min(patch) > LONG_ASPECT:
        return float(ANGLE_LONG_2D)
    in_plane = range(len(patch) - 2, len(patch))
    turns_freely = mirrored is None or set(in_plane) <= set(mirrored)
    return float(ANGLE_2D if len(_warped(patch)) == 2 and turns_freely else ANGLE_3D)


def source_shape(patch: tuple[int, ...], warp: Warp | None) -> tuple[int, ...]:
    """Return the size in voxels of the region that must be read for a patch under a transform."""
    if warp is None:
        return patch
    axes = _warped(patch)
    half = (np.array(axes) - 1) / 2
    if warp.bend is not None:
        # Between its control points, a B-spline is a weighted mean of them.
        half = half + np.abs(warp.bend).reshape(len(axes), -1).max(1)
    reach = np.abs(warp.matrix) @ half
    return (*patch[: len(patch) - len(axes)], *(int(np.ceil(2 * r)) + 1 for r in reach))


def apply_warp(image: Tensor, label: np.ndarray, patch: tuple[int, ...], warp: Warp) -> tuple[Tensor, np.ndarray]:
    """Resample a region of `source_shape` to the patch: linear for the image, nearest for the label.

    Nearest-neighbour interpolation takes the same time for 2 and for 60 labels, and neither loses nor invents a label
    where three of them meet. nnU-Net interpolates every label separately.

    Args:
        image: Image, shape (C, *source), float32, on the device that resamples it.
        label: Label values, shape (*source) or (L, *source), integers.
        patch: Patch size in voxels.
        warp: Transform from `draw_warp`.
    """
    axes, lead = _warped(patch), label.shape[: label.ndim - len(patch)]
    source = image.shape[-len(axes) :]
    grid = _grid(axes, source, warp, image.device)[None]
    # All slices of a flat patch are sampled at the same positions: they become channels.
    values = image.reshape(1, -1, *source)
    labels = torch.from_numpy(label.astype(np.float32)).to(image.device).reshape(1, -1, *source)
    moved = functional.grid_sample(values, grid, mode="bilinear", align_corners=True)
    moved_label = functional.grid_sample(labels, grid, mode="nearest", align_corners=True, padding_mode="border")
    return moved.reshape(-1, *patch), moved_label.cpu().numpy().reshape(lead + patch).astype(label.dtype)


def _grid(axes: tuple[int, ...], source: tuple[int, ...], warp: Warp, device: torch.device) -> Tensor:
    """Return the grid (*axes, dims) for grid_sample: x first; -1 and 1 are the centres of the first and last voxel."""
    half = np.maximum((np.array(source) - 1) / 2, 0.5)
    matrix = torch.from_numpy(np.ascontiguousarray((warp.matrix / half[:, None])[::-1], dtype=np.float32)).to(device)
    dims = len(axes)
    grid = torch.zeros(dims, device=device)
    # Last axis first: the partial sums stay small until the end.
    for axis in reversed(range(dims)):
        offsets = torch.arange(axes[axis], device=device) - (axes[axis] - 1) / 2
        grid = grid + offsets.reshape(-1, *[1] * (dims - axis)) * matrix[:, axis]
    if warp.bend is not None:
        field = torch.from_numpy(warp.bend.astype(np.float32)).to(device)
        for n in axes:
            # Replaces the first axis of control points by an axis of voxels at the end.
            field = torch.tensordot(field, _spline(n).to(device), dims=([1], [1]))
        grid = grid + field.movedim(0, -1) @ matrix.T
    return grid


def _spline(n: int) -> Tensor:
    """Return the weights (n, BEND_INTERVALS + 3) of the control points of a uniform cubic B-spline at n voxels."""
    where = np.linspace(0, BEND_INTERVALS, n)[:, None] + 1
    distance = np.abs(where - np.arange(BEND_INTERVALS + 3))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
    return torch.from_numpy(np.select([distance < 1, distance < 2], [near, far]).astype(np.float32))
