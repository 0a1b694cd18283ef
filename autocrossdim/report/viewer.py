"""What the viewer of the report shows: cases as compressed volumes within a page that needs no other file.

The image of a case is one WebP picture of all its slices side by side, and so is its uncertainty map. Annotation and
prediction are compressed without loss (zlib), since a changed value would be another label.
"""

import base64
import io
import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from autocrossdim.records.colours import colours
from autocrossdim.records.labels import Labels
from autocrossdim.report.pictures import CASING
from autocrossdim.report.scans import Plane, Scan

MOST_VOXELS, MOST_BYTES = 700_000, 210_000
"""Of a case with all its slices. Eight of them are 2.2 MB in base64, out of the 5 MB that a page should not exceed."""
SLICE_VOXELS, SLICE_BYTES = 128 * 128, 7_000
"""Of a case with one slice. A hundred of them are 0.9 MB in base64."""
QUALITIES = (90, 80, 70)  # of WebP, the first that is small enough; then the resolution is reduced
UNCERTAINTY_QUALITY = 70  # of WebP
RAMP = ("#440154", "#3b528b", "#21918c", "#5ec962", "#fde725")
"""Colours of the uncertainty, from certain to undecided: viridis, which is safe for the colour-blind."""

CT_LEVELS = ((-1024, 0), (-200, 60), (300, 220), (2000, 255))
"""Grey values of a CT scan (HU, 0 to 255), three HU per step in soft tissue and more elsewhere, so that narrow windows
still show differences."""
CT_WINDOWS = {
    "soft tissue": (40, 400),
    "brain": (40, 80),
    "liver": (60, 160),
    "lung": (-600, 1500),
    "bone": (400, 1800),
}
"""Centre and width of common windows, HU."""


def ct_window(scan: Scan) -> str:
    """Return the name of the window that shows the annotated part of a CT scan: soft tissue, lung or bone."""
    inside = scan.image[0][scan.annotation > 0]
    if not inside.size:
        return "soft tissue"
    centre, width = CT_WINDOWS["soft tissue"]
    typical = float(np.median(inside))
    return "soft tissue" if abs(typical - centre) <= width / 2 else "lung" if typical < centre else "bone"


def ct_limits(scan: Scan) -> tuple[float, float]:
    """Return the ends of that window, HU."""
    centre, width = CT_WINDOWS[ct_window(scan)]
    return centre - width / 2, centre + width / 2


def shared(labels: Labels, *, ct: bool) -> dict[str, Any]:
    """Return what all cases of the viewer have in common."""
    index = {value: number for number, value in enumerate(labels.values)}
    return {
        "labels": [
            {"name": name, "values": [index[value] for value in values], "colour": colour}
            for (name, values), colour in zip(labels.foreground.items(), colours(labels), strict=True)
        ],
        "casing": CASING,
        "ramp": RAMP,
        "windows": [{"name": name, "centre": c, "width": w} for name, (c, w) in CT_WINDOWS.items()] if ct else [],
    }


def volume(scan: Scan, labels: Labels, *, ct: bool) -> dict[str, Any]:
    """Return a case with all its slices: the part around its labels if it is large, reduced as far as necessary."""
    whole = math.prod(scan.shape) <= MOST_VOXELS
    part = scan if whole else scan.around_labels()
    notes = [] if part.shape == scan.shape else ["Only the part around the labels is included."]
    return _encoded(part, labels, ct=ct, voxels=MOST_VOXELS, most=MOST_BYTES, notes=notes)


def single_slice(scan: Scan, labels: Labels, *, ct: bool) -> dict[str, Any]:
    """Return the slice of a case that `Scan.fullest` names."""
    plane = scan.acquired()
    number = scan.fullest(plane.axis)
    part = scan.one_slice(plane, number)
    slices = scan.shape[plane.axis]
    notes = [f"Only slice {number + 1} of {slices} is included for this case."] if slices > 1 else []
    return _encoded(part, labels, ct=ct, voxels=SLICE_VOXELS, most=SLICE_BYTES, notes=notes)


def _encoded(scan: Scan, labels: Labels, *, ct: bool, voxels: int, most: int, notes: list[str]) -> dict[str, Any]:
    """Return a scan of at most about `voxels` voxels and `most` bytes."""
    levels = CT_LEVELS if ct else _levels(scan)
    while True:
        small = scan.reduced(voxels)
        columns = math.ceil(math.sqrt(small.shape[0]))
        sprite = _tiled(_grey(small, levels), columns)
        maps = [zlib.compress(_indices(array, labels).tobytes(), 9) for array in (small.annotation, small.prediction)]
        uncertainty = (
            b"" if small.uncertainty is None else _webp(_undecided(small.uncertainty, columns), UNCERTAINTY_QUALITY)
        )
        room = most - sum(map(len, (*maps, uncertainty)))
        image = next((i for q in QUALITIES if len(i := _webp(sprite, q)) <= room), None) or _webp(sprite, QUALITIES[-1])
        size = most - room + len(image)
        if size <= most or math.prod(small.shape) <= 1000:
            break
        voxels = int(0.9 * math.prod(small.shape) * most / size)
    if small.shape != scan.shape:
        steps = " × ".join(f"{new / old:.1f}" for new, old in zip(small.spacing, scan.spacing, strict=True))
        notes = [*notes, f"Resolution is reduced by {steps}."]
    if not scan.oriented and len(scan.planes()) > 1:
        notes = [*notes, "The file does not state the orientation of the image, so sides are not marked."]
    low, high = (float(end) for end in np.percentile(small.image, (1, 99)))
    return {
        "shape": small.shape,
        "spacing": small.spacing,
        "planes": [_plane(plane, small) for plane in small.planes()],
        "levels": levels,
        "window": ct_window(scan) if ct else "automatic",
        "range": (low, max(high, low + 1e-6)),
        "columns": columns,
        "image": _base64(image),
        "annotation": _base64(maps[0]),
        "prediction": _base64(maps[1]),
        "uncertainty": _base64(uncertainty),
        "wide": len(labels.values) > 256,
        "notes": notes,
    }


def _plane(plane: Plane, scan: Scan) -> dict[str, Any]:
    return {
        "name": plane.name,
        "axis": plane.axis,
        "rows": plane.rows,
        "columns": plane.columns,
        "flipped": plane.flipped,
        "marks": plane.marks,
        "start": scan.fullest(plane.axis),
    }


def _levels(scan: Scan) -> tuple[tuple[float, float], ...]:
    low, high = (float(end) for end in np.percentile(scan.image, (0.1, 99.9)))
    return (low, 0), (max(high, low + 1e-6), 255)


def _grey(scan: Scan, levels: tuple[tuple[float, float], ...]) -> NDArray[np.uint8]:
    values, greys = zip(*levels, strict=True)
    grey: NDArray[np.uint8] = np.interp(scan.image, values, greys).round().astype(np.uint8)
    return grey


def _undecided(uncertainty: NDArray[Any], columns: int) -> NDArray[np.uint8]:
    """Return a picture of all slices from 0 (certain) to 255 (two labels are equally probable, or more of them)."""
    grey = (2.55 * np.minimum(uncertainty, 100)).round().astype(np.uint8)
    return _tiled(grey[None], columns)


def _tiled(volume: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Return the slices of a volume (C, Z, Y, X) row by row in one picture (rows · Y, columns · X, C)."""
    channels, slices, height, width = volume.shape
    rows = math.ceil(slices / columns)
    padded = np.pad(volume, ((0, 0), (0, rows * columns - slices), (0, 0), (0, 0)))
    tiles = padded.reshape(channels, rows, columns, height, width).transpose(1, 3, 2, 4, 0)
    return np.ascontiguousarray(tiles).reshape(rows * height, columns * width, channels)


def _indices(label: NDArray[Any], labels: Labels) -> NDArray[np.unsignedinteger[Any]]:
    """Return the position of each label value among `labels.values`; 0 for one that is not declared."""
    values = np.array(labels.values)
    position = np.searchsorted(values, label).clip(max=len(values) - 1)
    known = np.where(values[position] == label, position, 0)
    return known.astype("<u2" if len(values) > 256 else "u1")


def _webp(picture: NDArray[np.uint8], quality: int) -> bytes:
    stream = io.BytesIO()
    colour = picture if picture.shape[-1] == 3 else np.repeat(picture, 3, axis=-1)
    Image.fromarray(colour).save(stream, "WEBP", quality=quality, method=4)
    return stream.getvalue()


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
