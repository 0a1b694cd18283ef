"""Cases as the report shows them: turned to the radiological convention, in planes with letters at their edges.

Whatever the orientation of a file, an axial slice has the patient's right on the left of the picture and the front at
the top, as radiologists are used to.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocrossdim.data.annotated_slices import read_annotation
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import read_image, read_label
from autocrossdim.data.orientation import Reorientation
from autocrossdim.records.labels import Labels

Array = NDArray[Any]

SHOWN = "SPL"  # slices from feet to head, rows from front to back, columns from the patient's right to left
MARGIN = 0.5  # margin around the labelled box on each side, as a share of its extent
LEAST_MARGIN = 12  # voxels


@dataclass(frozen=True)
class Plane:
    """A plane through an array (Z, Y, X).

    Attributes:
        name: Name, such as `axial`.
        axis: Axis across the slices.
        rows: Axis that runs down the picture.
        columns: Axis that runs to the right.
        flipped: Whether the first row of the picture is the last one of the array.
        marks: Letters at the left, right, top and bottom edge; empty if the orientation is unknown.
    """

    name: str
    axis: int
    rows: int
    columns: int
    flipped: bool = False
    marks: str = ""

    def slice(self, array: Array, number: int) -> Array:
        """Return slice `number` of an array (..., Z, Y, X) as a picture (..., rows, columns)."""
        picture = np.moveaxis(array, self.axis - 3, -3)[..., number, :, :]
        return picture[..., ::-1, :] if self.flipped else picture


ANATOMICAL = (
    Plane("axial", axis=0, rows=1, columns=2, marks="RLAP"),
    Plane("coronal", axis=1, rows=0, columns=2, flipped=True, marks="RLSI"),
    Plane("sagittal", axis=2, rows=0, columns=1, flipped=True, marks="APSI"),
)
UNKNOWN = (
    Plane("first axis", axis=0, rows=1, columns=2),
    Plane("second axis", axis=1, rows=0, columns=2),
    Plane("third axis", axis=2, rows=0, columns=1),
)
"""Planes of arrays whose orientation is unknown, drawn in the order in which they are stored."""


@dataclass(frozen=True)
class Scan:
    """One case, ready to be drawn.

    Attributes:
        image: Shape (1, Z, Y, X), or (3, Z, Y, X) in colour.
        annotation: Label values, shape (Z, Y, X); 0 for ignored voxels.
        prediction: Label values, shape (Z, Y, X); 0 where the annotation is ignored.
        spacing: mm (z, y, x).
        oriented: Whether the orientation is known, and the arrays are in the order `SHOWN`.
        unmatched: Values of labels that only the annotation or only the prediction has; their slices are shown first.
        uncertainty: Entropy of the probabilities in hundredths of a bit, shape (Z, Y, X); 0 where the annotation is
            ignored. None if there is no map.
    """

    image: Array
    annotation: Array
    prediction: Array
    spacing: tuple[float, float, float]
    oriented: bool
    unmatched: tuple[int, ...] = ()
    uncertainty: Array | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels (Z, Y, X)."""
        z, y, x = self.annotation.shape
        return z, y, x

    @property
    def labelled(self) -> NDArray[np.bool_]:
        """Where annotation or prediction has a label."""
        mask: NDArray[np.bool_] = (self.annotation > 0) | (self.prediction > 0)
        return mask

    def planes(self) -> tuple[Plane, ...]:
        """Return the planes in which slices have an extent: three, or one for a 2D image."""
        every = ANATOMICAL if self.oriented else UNKNOWN
        found = tuple(each for each in every if self.shape[each.rows] > 1 and self.shape[each.columns] > 1)
        return found or every

    def acquired(self) -> Plane:
        """Return the plane of the slices as they were acquired: across the axis with the largest spacing."""
        return max(self.planes(), key=lambda plane: self.spacing[plane.axis])

    def fullest(self, axis: int) -> int:
        """Return the number of the slice across an axis to show first.

        It is the one with most voxels of labels that were missed; without any, of false alarms, then of the annotation,
        then of the prediction; without either, the middle one.
        """
        both = self.annotation, self.prediction
        failures = [np.isin(labels, self.unmatched) for labels in both] if self.unmatched else []
        for mask in (*failures, *(labels > 0 for labels in both)):
            counts = np.moveaxis(mask, axis, 0).sum(axis=(1, 2))
            if counts.any():
                return int(counts.argmax())
        return self.shape[axis] // 2

    def part(self, box: tuple[slice, slice, slice]) -> "Scan":
        """Return a part of the scan."""
        z, y, x = box
        return replace(
            self,
            image=self.image[:, z, y, x],
            annotation=self.annotation[box],
            prediction=self.prediction[box],
            uncertainty=None if self.uncertainty is None else self.uncertainty[box],
        )

    def one_slice(self, plane: Plane, number: int) -> "Scan":
        """Return one slice of a plane as a scan."""
        z, y, x = (slice(number, number + 1) if axis == plane.axis else slice(None) for axis in range(3))
        return self.part((z, y, x))

    def around_labels(self) -> "Scan":
        """Return the part with labels, and a margin; all of it if nothing is labelled."""
        labelled = self.labelled
        return self.part(
            (
                _window(np.any(labelled, axis=(1, 2))),
                _window(np.any(labelled, axis=(0, 2))),
                _window(np.any(labelled, axis=(0, 1))),
            )
        )

    def reduced(self, most: int) -> "Scan":
        """Return the scan with at most `most` voxels: means of image and uncertainty, nearest values of the labels.

        Only axes finer than a common step are reduced, so a coarse axis keeps all its slices. A label that would
        disappear is kept wherever it is.
        """
        step = min(self.spacing)
        while math.prod(shape := self._at(step)) > most:
            step *= 1.02
        if shape == self.shape:
            return self
        z, y, x = (mm * old / new for mm, old, new in zip(self.spacing, self.shape, shape, strict=True))
        return replace(
            self,
            image=_means(self.image, shape),
            annotation=_nearest(self.annotation, shape),
            prediction=_nearest(self.prediction, shape),
            uncertainty=None if self.uncertainty is None else _means(self.uncertainty, shape),
            spacing=(z, y, x),
        )

    def _at(self, step: float) -> tuple[int, int, int]:
        z, y, x = (max(1, round(n * mm / max(mm, step))) for n, mm in zip(self.shape, self.spacing, strict=True))
        return z, y, x


def read_scan(
    images: Sequence[Path],
    reference: Path | None,
    prediction: Path,
    labels: Labels,
    *,
    unmatched: Sequence[str] = (),
    uncertainty: Path | None = None,
) -> Scan:
    """Read a case and turn it to the orientation in which it is shown.

    Args:
        images: Channels of the case. The first is shown, or all three of one colour picture.
        reference: Annotation; None if there is none.
        prediction: Segmentation.
        labels: Labels that were annotated in the case. Voxels to be ignored in the annotation are cleared in both,
            and labels that were not annotated in the prediction.
        unmatched: Names of labels that only the annotation or only the prediction has.
        uncertainty: Uncertainty map of the prediction, as `Scan` describes it; None if there is none.

    Raises:
        UserError: A file cannot be read.
    """
    predicted, geometry = read_label(prediction)
    expected = np.zeros_like(predicted)
    if reference is not None:
        expected, geometry = read_annotation(reference, labels)
    image = read_image(images).array
    if len(images) > 1 or len(image) != 3:
        image = image[:1]
    ignored = labels.ignored(expected)
    shown = [value for values in labels.foreground.values() for value in values]
    predicted = np.where(np.isin(predicted, shown), predicted, 0)
    entropy = None if uncertainty is None else read_label(uncertainty)[0]
    orientation = None if _is_unplaced_slice(geometry) else geometry.orientation
    change = Reorientation.between(orientation, SHOWN)
    return Scan(
        image=change.apply(np.nan_to_num(image, posinf=0.0, neginf=0.0)),
        annotation=change.apply(np.where(ignored, 0, expected)),
        prediction=change.apply(np.where(ignored, 0, predicted)),
        spacing=change.permuted(geometry.spacing),
        oriented=orientation is not None,
        unmatched=tuple(value for name in unmatched for value in labels.foreground.get(name, ())),
        uncertainty=None if entropy is None else change.apply(np.where(ignored, 0, entropy)),
    )


def _is_unplaced_slice(geometry: Geometry) -> bool:
    """Whether an image is a single slice at the origin, such as ultrasound, whose header has a meaningless default."""
    return 1 in geometry.shape and not any(geometry.origin)


def _window(occupied: Array) -> slice:
    """Return the labelled part of an axis with a margin; the complete axis if nothing is labelled."""
    indices = np.flatnonzero(occupied)
    if len(indices) == 0:
        return slice(None)
    margin = max(LEAST_MARGIN, int(MARGIN * (indices[-1] - indices[0] + 1)))
    return slice(max(0, int(indices[0]) - margin), int(indices[-1]) + 1 + margin)


def _starts(old: int, new: int) -> NDArray[np.int64]:
    """Return the index of the first old voxel that each new voxel covers."""
    return np.arange(new) * old // new


def _means(image: Array, shape: Sequence[int]) -> Array:
    for axis, new in enumerate(shape, start=image.ndim - len(shape)):
        starts = _starts(image.shape[axis], new)
        counts = np.diff([*starts, image.shape[axis]])
        along = [1] * image.ndim
        along[axis] = new
        image = np.add.reduceat(image, starts, axis=axis) / counts.reshape(along)
    return image


def _nearest(label: Array, shape: Sequence[int]) -> Array:
    centres = [(2 * np.arange(new) + 1) * old // (2 * new) for old, new in zip(label.shape, shape, strict=True)]
    small: Array = label[np.ix_(*centres)]
    for value in np.setdiff1d(label, small):
        inside = label == value
        for axis, new in enumerate(shape):
            inside = np.logical_or.reduceat(inside, _starts(inside.shape[axis], new), axis=axis)
        small[inside] = value
    return small
