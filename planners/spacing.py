"""Axis order and target spacing: nnU-Net's rules."""

import numpy as np

from autocrossdim.records.fingerprint import Fingerprint

COARSE_AXIS_RATIO = 3.0  # an axis this many times coarser than the others is "coarse" (nnU-Net)
COARSE_AXIS_PERCENTILE = 10  # its target spacing, so that most cases are not made finer than they are (nnU-Net)


def axis_order(fingerprint: Fingerprint) -> tuple[int, int, int]:
    """Return the original axis of each axis in the plan's order: the coarsest first, the others as they were.

    Among equally coarse axes the first stays first, so isotropic data are not turned.
    """
    coarsest = int(np.argmax(fingerprint.median_spacing()))
    y, x = (axis for axis in range(3) if axis != coarsest)
    return coarsest, y, x


def anisotropy(spacing: np.ndarray) -> float:
    """Return largest / smallest spacing."""
    return float(spacing.max() / spacing.min())


def target_spacing(spacings: np.ndarray, shapes: np.ndarray) -> tuple[float, float, float]:
    """Return the spacing (mm) all cases are resampled to.

    The per-axis median; where one axis is more than 3x coarser than the others and has less than a third of
    their voxels, its 10th percentile, but nothing finer than the others.

    Args:
        spacings: shape (cases, 3), mm.
        shapes: shape (cases, 3), voxels after cropping.
    """
    target = np.median(spacings, axis=0)
    shape = np.median(shapes, axis=0)
    coarsest = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarsest]
    coarse = target[coarsest] > COARSE_AXIS_RATIO * target[others].max()
    few_voxels = shape[coarsest] * COARSE_AXIS_RATIO < shape[others].min()
    if coarse and few_voxels:
        finer = float(np.percentile(spacings[:, coarsest], COARSE_AXIS_PERCENTILE))
        target[coarsest] = max(finer, target[others].max())
    return float(target[0]), float(target[1]), float(target[2])


def resampled_shapes(spacings: np.ndarray, shapes: np.ndarray, target: tuple[float, ...]) -> np.ndarray:
    """Return the shapes (voxels; (cases, 3)) of the cases at the target spacing.

    Args:
        spacings: shape (cases, 3), mm.
        shapes: shape (cases, 3), voxels.
        target: mm; with two entries the slice axis is left as it is.
    """
    scale = np.ones_like(spacings, dtype=float)
    axes = slice(3 - len(target), 3)
    scale[:, axes] = spacings[:, axes] / np.array(target)
    voxels: np.ndarray = np.round(shapes * scale).astype(int)
    return voxels.clip(min=1)
