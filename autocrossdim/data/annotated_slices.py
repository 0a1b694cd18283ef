"""Which slices of a label file were annotated, for datasets in which `unannotated_slices` is "empty".

Slices lie across the axis with the largest voxel spacing, as they were acquired. That axis is the same however the
image is stored. Where several axes are equally coarse, it is the last index axis of the file (array axis 0), in the
file's own order, before images are brought to a common orientation.
"""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import read_label
from autocrossdim.records.labels import Labels

SAME_SPACING = 1.01  # spacings with a smaller ratio count as equal: headers round them

Label = npt.NDArray[np.integer[Any]]


def slice_axis(geometry: Geometry) -> int:
    """Return the array axis across which the slices of an image lie; 0 for an image of one slice."""
    if geometry.shape[0] == 1:
        return 0
    coarse = max(geometry.spacing) / SAME_SPACING
    return next(axis for axis, spacing in enumerate(geometry.spacing) if spacing >= coarse)


def labelled_slices(label: Label, geometry: Geometry) -> npt.NDArray[np.bool_]:
    """Return whether each slice of a label map (Z, Y, X) holds any label, shape (slices,)."""
    axis = slice_axis(geometry)
    labelled: npt.NDArray[np.bool_] = (label != 0).any(axis=tuple(other for other in range(3) if other != axis))
    return labelled


def mark_unannotated(label: Label, geometry: Geometry, labels: Labels) -> Label:
    """Return a label map (Z, Y, X) as read, with `labels.unannotated` in the slices that were not annotated.

    Without `unannotated_slices`, every slice was annotated and the label map is returned unchanged.
    """
    value = labels.unannotated
    if labels.unannotated_slices is None or value is None:
        return label
    marked = label.astype(np.promote_types(label.dtype, np.min_scalar_type(value)))
    np.moveaxis(marked, slice_axis(geometry), 0)[~labelled_slices(label, geometry)] = value
    return marked


def read_annotation(path: Path, labels: Labels) -> tuple[Label, Geometry]:
    """Read a label map (Z, Y, X) in which voxels that were not annotated have the value `labels.unannotated`.

    Raises:
        UserError: As `read_label`.
    """
    label, geometry = read_label(path)
    return mark_unannotated(label, geometry, labels), geometry
