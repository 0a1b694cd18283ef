"""Axis order and target spacing, by nnU-Net's rules."""

from dataclasses import dataclass

import numpy as np

from autocrossdim.records.fingerprint import Fingerprint

COARSE_AXIS_RATIO = 3.0  # an axis this many times coarser than both others is coarse (nnU-Net)
COARSE_AXIS_PERCENTILE = 10  # of its spacings: the target, so that few cases are upsampled along it (nnU-Net)
FINE_AXIS = 0.5  # times the coarsest spacing: finer axes are coarsened before the others (nnU-Net)

AxisOrder = tuple[int, int, int]


@dataclass(frozen=True)
class CaseSizes:
    """Sizes of the training cases, with axes in the plan's order.

    Attributes:
        spacings: Voxel spacing in mm, shape (cases, 3).
        shapes: Shape in voxels after cropping, shape (cases, 3).
    """

    spacings: np.ndarray
    shapes: np.ndarray

    @classmethod
    def of(cls, fingerprint: Fingerprint, order: AxisOrder) -> "CaseSizes":
        """Return the sizes of a dataset's cases.

        Args:
            fingerprint: Fingerprint of the dataset.
            order: Original axis of each axis in the plan's order.
        """
        spacings = np.array([case.spacing for case in fingerprint.cases], dtype=float)
        shapes = np.array([case.cropped_shape for case in fingerprint.cases])
        return cls(spacings[:, order], shapes[:, order])

    @property
    def median_spacing(self) -> np.ndarray:
        """Median spacing per axis in mm, shape (3,)."""
        return np.median(self.spacings, axis=0)  # type: ignore[no-any-return]

    @property
    def median_shape(self) -> np.ndarray:
        """Median shape per axis in voxels, shape (3,)."""
        return np.median(self.shapes, axis=0)  # type: ignore[no-any-return]

    @property
    def anisotropy(self) -> float:
        """Largest divided by smallest median spacing."""
        return float(self.median_spacing.max() / self.median_spacing.min())

    def resampled(self, target: tuple[float, ...]) -> np.ndarray:
        """Return the shapes in voxels at a target spacing, shape (cases, 3).

        Args:
            target: Spacing in mm; with two entries, the first axis keeps its voxels.
        """
        scale = np.ones_like(self.spacings)
        axes = slice(3 - len(target), 3)
        scale[:, axes] = self.spacings[:, axes] / np.array(target)
        voxels: np.ndarray = np.round(self.shapes * scale).astype(int)
        return voxels.clip(min=1)


def axis_order(fingerprint: Fingerprint) -> AxisOrder:
    """Return the original axis of each axis in the plan's order: the coarsest first, then the others in their order.

    Of several equally coarse axes, the first one is taken, so isotropic volumes are not transposed. 2D images never
    are: their first axis is the single slice, whatever its spacing.
    """
    coarsest = 0 if fingerprint.dims == 2 else int(np.argmax(fingerprint.median_spacing()))
    y, x = (axis for axis in range(3) if axis != coarsest)
    return coarsest, y, x


def target_spacing(sizes: CaseSizes) -> tuple[float, float, float]:
    """Return the spacing (mm) that all cases are resampled to.

    It is the median per axis. On an axis that is more than 3x coarser than both others and has less than a third of
    their voxels, it is the 10th percentile instead, but never finer than the others.
    """
    target, shape = sizes.median_spacing, sizes.median_shape
    coarsest = int(np.argmax(target))
    others = [axis for axis in range(3) if axis != coarsest]
    is_coarse = target[coarsest] > COARSE_AXIS_RATIO * target[others].max()
    has_few_voxels = shape[coarsest] * COARSE_AXIS_RATIO < shape[others].min()
    if is_coarse and has_few_voxels:
        finer = float(np.percentile(sizes.spacings[:, coarsest], COARSE_AXIS_PERCENTILE))
        target[coarsest] = max(finer, target[others].max())
    return float(target[0]), float(target[1]), float(target[2])


def coarser_spacing(spacing: tuple[float, float, float], growth: float) -> tuple[float, float, float]:
    """Return the spacing of voxels that are `growth` times as large.

    While some axes are finer than half the coarsest one, only these are coarsened, so that thick slices become thicker
    last (nnU-Net).

    Args:
        spacing: Spacing in mm.
        growth: Factor of the volume of a voxel, at least 1.
    """
    coarse = np.array(spacing, dtype=float)
    while growth > 1 + 1e-9:
        fine = coarse < (1 - 1e-9) * FINE_AXIS * coarse.max()
        axes = fine if fine.any() else np.full(3, True)
        until_next = FINE_AXIS * coarse.max() / coarse[axes].max() if fine.any() else np.inf
        factor = min(growth ** (1 / axes.sum()), until_next)
        coarse[axes] *= factor
        growth /= factor ** axes.sum()
    z, y, x = coarse.tolist()
    return z, y, x
