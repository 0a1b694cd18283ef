"""DICOM annotations: the segments of a DICOM-SEG file (through highdicom) and the contours of an RTSTRUCT file.

Both become masks on the grid of an image. The packages are optional and imported where they are used.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autocrossdim.data.dicom_objects import lenient
from autocrossdim.data.geometry import Geometry
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import listed, printable

Mask = npt.NDArray[np.bool_]

KINDS = ("SEG", "RTSTRUCT")
"""Values of the element Modality of annotations."""

GRID_TOLERANCE = 1e-2
"""Difference allowed between the grids of segments and image; DICOM rounds positions and directions."""
PLANE_TOLERANCE = 0.2
"""Distance allowed between a contour and the centre of its slice, as a share of the distance of slices."""
WITHIN = 0.95
"""Share of a contour's pixels that are inside larger ones of its slice if it is a hole; some may lie on both edges."""
HALF = 0.5  # of a fractional segmentation, which holds probabilities or shares of a voxel


def structure_names(path: Path) -> list[str]:
    """Return the names of the segments or regions of interest in a file, in its order.

    Raises:
        UserError: The file cannot be read.
    """
    from pydicom import dcmread

    with _reported(path):
        content = dcmread(path, stop_before_pixels=True)
        if content.Modality == "SEG":
            return [_name(segment.SegmentLabel) for segment in content.SegmentSequence]
        return [_name(region.ROIName) for region in content.StructureSetROISequence]


def structure_mask(path: Path, name: str, geometry: Geometry) -> Mask:
    """Return where a structure is, shape (Z, Y, X) of the image; empty if the file does not hold it.

    Args:
        path: DICOM-SEG or RTSTRUCT file.
        name: Name of the structure; structures of the same name are joined.
        geometry: Geometry of the image.

    Raises:
        UserError: The file cannot be read, or does not fit the grid of the image.
    """
    from pydicom import dcmread

    with _reported(path):
        kind = dcmread(path, specific_tags=["Modality"], stop_before_pixels=True).Modality
        return (_segments if kind == "SEG" else _contours)(path, name, geometry)


def _segments(path: Path, name: str, geometry: Geometry) -> Mask:
    import highdicom

    content = highdicom.seg.segread(path)
    numbers = [n for n in content.segment_numbers if _name(content.get_segment_description(n).segment_label) == name]
    if not numbers:
        return np.zeros(geometry.shape, np.bool_)
    volume = content.get_volume(segment_numbers=numbers, combine_segments=False)
    grid = highdicom.VolumeGeometry(_affine(geometry), geometry.shape, coordinate_system="PATIENT")
    matched = volume.match_geometry(grid, tol=GRID_TOLERANCE)
    if matched.array.astype(bool).sum() < volume.array.astype(bool).sum():
        raise UserError(f"{path}: '{name}' reaches beyond the image. Check that they belong together.")
    inside: Mask = (matched.array.astype(np.float32) >= HALF).any(axis=-1)
    return inside


def _contours(path: Path, name: str, geometry: Geometry) -> Mask:
    """Return the pixels whose centres are inside the contours of the regions called `name`."""
    from pydicom import dcmread

    content = dcmread(path)
    numbers = {int(r.ROINumber) for r in content.StructureSetROISequence if _name(r.ROIName) == name}
    mask = np.zeros(geometry.shape, np.bool_)
    for region in content.get("ROIContourSequence", []):
        if int(region.ReferencedROINumber) in numbers:
            mask |= _region(region, geometry, what=f"{path}: a contour of '{name}'")
    return mask


def _region(region: Any, geometry: Geometry, *, what: str) -> Mask:
    """Return the pixels inside the contours of one region.

    Args:
        region: Item of the ROI Contour Sequence.
        geometry: Geometry of the image.
        what: What a contour is called in messages.
    """
    from skimage.draw import polygon2mask

    inverse = np.linalg.inv(_affine(geometry))
    drawn: dict[int, list[tuple[npt.NDArray[np.float64], bool]]] = defaultdict(list)
    for contour in region.get("ContourSequence", []):
        kind = str(contour.ContourGeometricType).replace("_", "")  # CLOSED_PLANAR, but CLOSEDPLANAR_XOR
        if not kind.startswith("CLOSEDPLANAR"):
            continue  # points and open lines have no inside
        points = np.asarray(contour.ContourData, float).reshape(-1, 3)
        index = np.c_[points, np.ones(len(points))] @ inverse[:3].T  # voxels (z, y, x)
        z = round(float(index[:, 0].mean()))
        if np.abs(index[:, 0] - z).max() > PLANE_TOLERANCE or not 0 <= z < geometry.shape[0]:
            raise UserError(
                f"{what} does not lie in a slice of the image (it is at slice {index[:, 0].mean():.2f}, counted from "
                "0). Check that they belong together."
            )
        drawn[z].append((index[:, 1:], kind.endswith("XOR")))
    inside = np.zeros(geometry.shape, np.bool_)
    for z, contours in drawn.items():
        inside[z] = _filled([(polygon2mask(geometry.shape[1:], line), exclusive) for line, exclusive in contours])
    return inside


def _filled(areas: Sequence[tuple[Mask, bool]]) -> Mask:
    """Return what the contours of a slice enclose together.

    A contour inside a larger one is a hole, and one inside a hole an island; others are joined. One that is listed
    twice counts once. Contours of type CLOSEDPLANAR_XOR are combined by exclusive or (PS3.3, C.8.8.6.3).

    Args:
        areas: Mask of the pixels inside each contour, and whether it is of that type.
    """
    inside, covered = np.zeros_like(areas[0][0]), np.zeros_like(areas[0][0])
    previous: list[Mask] = []
    for area, exclusive in sorted(areas, key=lambda each: -int(each[0].sum())):
        if exclusive:
            inside ^= area
        elif area.any() and not any(np.array_equal(area, other) for other in previous):
            is_hole = covered[area].mean() >= WITHIN and inside[area].mean() > 1 - WITHIN
            inside = inside & ~area if is_hole else inside | area
            covered |= area
            previous.append(area)
    return inside


def _affine(geometry: Geometry) -> npt.NDArray[np.float64]:
    """Return the matrix from voxels (z, y, x) to positions in mm, in DICOM's coordinates (x, y, z)."""
    affine = np.eye(4)
    direction = np.array(geometry.direction).reshape(3, 3)
    affine[:3, :3] = direction[:, ::-1] * np.array(geometry.spacing)
    affine[:3, 3] = geometry.origin
    return affine


def _name(text: Any) -> str:
    return printable(str(text).strip()) or "unnamed"


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Turn what pydicom and highdicom raise on unusual or damaged files into a UserError."""
    try:
        with lenient():
            yield
    except UserError:
        raise
    except Exception as error:  # of many kinds, depending on what is missing or malformed
        reason = printable(str(error).partition("\n")[0].rstrip(".")) or type(error).__name__
        raise UserError(
            f"{path}: cannot be used ({reason}). Check that it belongs to the image beside it, or export it again."
        ) from error


def painted(
    paths: Sequence[Path], labels: dict[str, int], geometry: Geometry
) -> tuple[npt.NDArray[np.uint16], dict[str, int]]:
    """Return label values (Z, Y, X), higher ones over lower ones, and the number of voxels painted over.

    The numbers are by overlap, such as "tumour over organ".

    Args:
        paths: Files with the annotations of one image.
        labels: Name of a structure -> its value.
        geometry: Geometry of the image.

    Raises:
        UserError: A file cannot be used.
    """
    label = np.zeros(geometry.shape, np.uint16)
    names, overlaps = {value: name for name, value in labels.items()}, Counter[str]()
    for name, value in sorted(labels.items(), key=lambda item: item[1]):
        for path in paths:
            mask = structure_mask(path, name, geometry)
            for below, voxels in zip(*np.unique(label[mask], return_counts=True), strict=True):
                if below not in (0, value):
                    overlaps[f"{name} over {names[int(below)]}"] += int(voxels)
            label[mask] = value
    return label, dict(overlaps)


def described(names: Sequence[str]) -> str:
    """Return names of structures for a message."""
    return listed(sorted(set(names)), 20) or "none"
