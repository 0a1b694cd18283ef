"""Largest-component post-processing of a segmentation."""

from collections.abc import Sequence
from typing import Any

import cc3d
import numpy as np
from numpy.typing import NDArray

from autocrossdim.records.best import KeepLargest

LabelArray = NDArray[np.integer[Any]]


CONNECTIVITY = 26  # corners touch, so that as little as possible is taken away; nnU-Net's default too


def postprocess(label: LabelArray, steps: Sequence[KeepLargest]) -> LabelArray:
    """Return `label` with every step applied, in order, until nothing changes; a copy where anything did.

    The order matters: foreground first, so that an island of a label far off cannot be taken for its largest
    component. What one step takes away may part what another one keeps, hence the repetition; it ends, because
    every step only takes away.

    Args:
        label: label values, shape (Z, Y, X).
        steps: as `possible_steps` orders them.
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
    components, count = cc3d.connected_components(inside, connectivity=CONNECTIVITY, return_N=True)
    if count <= 1:
        return label
    largest = int(np.argmax(cc3d.statistics(components, no_slice_conversion=True)["voxel_counts"][1:])) + 1
    kept = label.copy()
    kept[box][inside & (components != largest)] = step.replaced_by
    return kept


def _extent(mask: NDArray[np.bool_], axis: int) -> slice:
    """The part of an axis in which `mask` is true anywhere."""
    found = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
    return slice(int(found[0]), int(found[-1]) + 1) if found.size else slice(0, 0)
