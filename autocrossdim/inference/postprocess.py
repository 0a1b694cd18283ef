"""Largest-component post-processing of a segmentation."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from autocrossdim.records.best import KeepLargest

LabelArray = NDArray[np.integer[Any]]

CONNECTIVITY = 3  # axes along which neighbours may differ: corners touch, so that little is removed (as in nnU-Net)


def postprocess(label: LabelArray, steps: Sequence[KeepLargest]) -> LabelArray:
    """Return `label` with every step applied in order until nothing changes; a copy if anything did.

    The order matters: all foreground comes first, so that a distant island is not mistaken for a label's largest
    component. A step may split what another one keeps, hence the repetition. It ends because steps only remove voxels.

    Args:
        label: Label values, shape (Z, Y, X).
        steps: Steps in the order of `selection.postprocessing.possible_steps`.
    """
    while True:
        before = label
        for step in steps:
            label = _keep_largest(label, step)
        if label is before or len(steps) == 1:
            return label


def _keep_largest(label: LabelArray, step: KeepLargest) -> LabelArray:
    mask = np.isin(label, step.values)
    box = tuple(_extent(mask, axis) for axis in range(mask.ndim))
    inside = mask[box]
    if not inside.size:
        return label
    # Measured on 200 x 400 x 400 voxels with an organ and 11,000 specks, one core: 1.1 s with skimage, 0.8 s with cc3d.
    # Prediction of such a scan takes minutes, so a second dependency is not worth it.
    components, count = measure.label(inside, connectivity=CONNECTIVITY, return_num=True)
    if count <= 1:
        return label
    largest = int(np.argmax(np.bincount(components.ravel())[1:])) + 1
    kept = label.copy()
    kept[box][inside & (components != largest)] = step.replaced_by
    return kept


def _extent(mask: NDArray[np.bool_], axis: int) -> slice:
    """Return the part of an axis in which `mask` is true anywhere."""
    occupied = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
    return slice(int(occupied[0]), int(occupied[-1]) + 1) if occupied.size else slice(0, 0)
