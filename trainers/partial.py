"""Targets of cases in which not every label was annotated.

A voxel that is background in such a case may belong to any label that was not annotated there. For exclusive labels,
its target is therefore a set of classes: background and those labels. Sets are numbered after the classes, so that a
target remains one number per voxel. For regions, which are independent of each other, a region that was not annotated
is ignored.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from autocrossdim.records.labels import Labels
from trainers.loss import IGNORED

ClassSet = tuple[int, ...]  # numbers of classes, background included


def class_sets(labels: Labels, annotated: Iterable[Sequence[str] | None]) -> tuple[ClassSet, ...]:
    """Return the different sets of classes that background may belong to; none for regions.

    Args:
        labels: Labels of the dataset.
        annotated: Names of the labels that were annotated in each case; None for a case in which all were.
    """
    if labels.has_regions:
        return ()
    return tuple(sorted({_class_set(labels, names) for names in annotated if names is not None}))


def leave_open(
    target: np.ndarray, labels: Labels, annotated: Sequence[str], sets: Sequence[Sequence[int]]
) -> np.ndarray:
    """Return a target that claims nothing about the labels that were not annotated.

    Args:
        target: Class indices (*patch) or regions (R, *patch).
        labels: Labels of the dataset.
        annotated: Names of the labels that were annotated.
        sets: Result of `class_sets` for all cases. If empty, background is ignored, which any loss understands.
    """
    result = target.copy()
    if labels.has_regions:
        result[[index for index, name in enumerate(labels.names) if name not in annotated]] = IGNORED
    else:
        number = labels.num_outputs + list(sets).index(_class_set(labels, annotated)) if sets else IGNORED
        result[target == 0] = number
    return result


def _class_set(labels: Labels, annotated: Sequence[str]) -> ClassSet:
    """Return background and the classes that were not annotated."""
    return (0, *(index for index, name in enumerate(labels.names, start=1) if name not in annotated))
