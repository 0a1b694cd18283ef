"""Where an image's voxels are in space, and whether two images are at the same place."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from autocrossdim.data.orientation import orientation_code
from autocrossdim.system.text import by_axis

# Largest difference in geometry between channels, and between image and label, as a share of a voxel (absolute for
# the direction matrix). Headers written as float32, or through a quaternion, differ by 1e-5 for the same geometry.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Geometry:
    """Position of an image's voxels in space.

    Attributes:
        shape: Voxels (Z, Y, X); Z is 1 for a 2D image.
        spacing: mm (z, y, x); z is 1.0 for a 2D image.
        origin: ITK's origin in mm, unchanged, `dims` entries (x, y, z).
        direction: ITK's direction matrix, unchanged, row by row, `dims` squared entries.
        dims: 2 or 3.
        pixel_type: Voxel type of the file, for display.
        oriented: Whether the file states how its axes lie in the patient. Pictures do not, and neither do NIfTI, NRRD,
            MHA and DICOM files whose header lacks it.
        header: Geometry in the source's format, `nifti:<base64>` or `nrrd:<lines>`. Files of the same format are
            written with it, which preserves the geometry bit by bit.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    dims: int
    pixel_type: str | None = field(default=None, compare=False)
    header: str | None = field(default=None, compare=False, repr=False)
    oriented: bool = field(default=True, compare=False)

    @property
    def orientation(self) -> str | None:
        """Orientation code of the array, see `autocrossdim.data.orientation`; None if it is unknown or 2D."""
        return orientation_code(self.direction) if self.dims == 3 and self.oriented else None

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that JSON preserves exactly."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Geometry":
        """Return the geometry that `to_json` described."""
        tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        return cls(**tuples)


@dataclass
class Image:
    """An image: `array` of shape (C, Z, Y, X), float32, and its geometry."""

    array: npt.NDArray[np.float32]
    geometry: Geometry


def same_place(a: Geometry, b: Geometry) -> str | None:
    """Describe how two geometries differ in orientation, shape, spacing, origin or direction; None if they agree.

    The tolerance is `TOLERANCE`: relative to the spacing for spacing and origin, absolute for the direction matrix.
    """
    if a.dims != b.dims:
        return f"{a.dims}D and {b.dims}D"
    if _turned(a, b):  # shape, spacing and origin then differ as well, which would explain nothing
        return f"orientation {a.orientation} and {b.orientation} (z, y, x)"
    if a.shape != b.shape:
        return f"shape {by_axis(a.shape)} and {by_axis(b.shape)} voxels (z, y, x)"
    spacing = np.array(a.spacing)
    if np.any(np.abs(spacing - b.spacing) > TOLERANCE * spacing):
        return f"spacing {by_axis(a.spacing)} and {by_axis(b.spacing)} mm (z, y, x)"
    if np.any(np.abs(np.subtract(a.origin, b.origin)) > TOLERANCE * spacing.min()):
        return f"origin {by_axis(a.origin)} and {by_axis(b.origin)} mm (x, y, z)"
    if np.any(np.abs(np.subtract(a.direction, b.direction)) > TOLERANCE):
        return f"direction {by_axis(a.direction)} and {by_axis(b.direction)}"
    return None


def label_fault(image: Geometry, label: Geometry) -> str | None:
    """Say how the geometry of a label differs from that of its image, and what to do about it; None if they agree."""
    difference = same_place(image, label)
    if difference is None:
        return None
    if _turned(image, label):
        return (
            f"the label is stored as {label.orientation}, its image as {image.orientation} (z, y, x). Reorient the "
            "label to the grid of its image, in Python: sitk.Resample(label, image, "
            "interpolator=sitk.sitkNearestNeighbor)."
        )
    return f"the label's geometry differs from the image's: {difference}. {_remedy(image, label)}"


def _remedy(image: Geometry, label: Geometry) -> str:
    """Return what to do about a label on another grid; its header may be all that is wrong if the shapes agree."""
    if image.shape != label.shape:
        return "Resample the label to the grid of the image."
    return (
        "If the label fits the image voxel by voxel, correct its header, in Python: label.CopyInformation(image); "
        "otherwise, resample it to the grid of the image."
    )


def _turned(a: Geometry, b: Geometry) -> bool:
    """Whether two 3D geometries have known, different orientations.

    The codes of oblique images halfway between two axes may differ although the directions agree, so these count.
    """
    codes = {a.orientation, b.orientation}
    differs = len(codes) == 2 and None not in codes
    return differs and bool(np.any(np.abs(np.subtract(a.direction, b.direction)) > TOLERANCE))


def three(values: Sequence[Any]) -> tuple[Any, Any, Any]:
    """Return three values as a tuple that type checkers know the length of."""
    z, y, x = values
    return z, y, x
