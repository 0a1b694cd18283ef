"""What ITK leaves to us in NRRD and TIFF files.

A NRRD file that ITK writes from an oblique image comes back changed in the last digit, so it is written with the
source's own lines about where voxels lie. A TIFF file that was cut short is read as a volume of fewer pages.
"""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy.typing as npt

from autocrossdim.data.nifti import COMPRESSION
from autocrossdim.errors import UserError

_MARK = "nrrd:"
_TYPES = {"uint8": "uint8", "uint16": "uint16", "float32": "float"}
_KEPT = ("space", "spacings", "axis mins", "axis maxs", "centering")


def nrrd_header(path: Path) -> str | None:
    """Return the lines of a NRRD file's header that say where voxels lie, for `Geometry.header`.

    None if the file has an axis that is not one of space (colours), whose lines would not fit a label.
    """
    with path.open("rb") as file:
        lines: list[str] = []
        while (line := file.readline().strip()) and len(lines) < 1000:
            lines.append(line.decode("ascii", errors="replace"))
    kept = [line for line in lines if line.lower().startswith(_KEPT)]
    if any("none" in line for line in kept):
        return None
    return _MARK + "\n".join(kept)


def is_nrrd_header(text: str | None) -> bool:
    """Say whether `text` is what `nrrd_header` returned."""
    return text is not None and text.startswith(_MARK)


def write_nrrd(path: Path, array: npt.NDArray[Any], header: str) -> None:
    """Write `array` (Z, Y, X) or (Y, X) with the geometry of a header that `nrrd_header` returned."""
    lines = [
        "NRRD0004",
        f"type: {_TYPES[array.dtype.name]}",
        f"dimension: {array.ndim}",
        "sizes: " + " ".join(str(n) for n in array.shape[::-1]),
        *header.removeprefix(_MARK).splitlines(),
        "endian: little",
        "encoding: gzip",
    ]
    voxels = array.astype(array.dtype.newbyteorder("<")).tobytes()
    head = ("\n".join(lines) + "\n\n").encode("ascii", errors="replace")
    path.write_bytes(head + gzip.compress(voxels, COMPRESSION, mtime=0))


def check_tiff(path: Path) -> None:
    """See that the chain of a TIFF file's pages ends inside the file.

    Raises:
        UserError: the file is not a TIFF or was cut short.
    """
    with path.open("rb") as file:
        start = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(start[:2])
        try:
            if order is None:
                raise UserError(f"{path}: not a TIFF file (its first bytes say so). Replace the file.")
            big = struct.unpack(order + "H", start[2:4])[0] == 43  # BigTIFF has 8-byte offsets
            offset_format, count_format, entry = ("Q", "Q", 20) if big else ("I", "H", 12)
            position = 8 if big else 4
            width = struct.calcsize(offset_format)
            (offset,) = struct.unpack(order + offset_format, start[position : position + width])
            seen = set()
            while offset and offset not in seen:
                seen.add(offset)
                file.seek(offset)
                (count,) = struct.unpack(order + count_format, file.read(struct.calcsize(count_format)))
                file.seek(count * entry, 1)
                (offset,) = struct.unpack(order + offset_format, file.read(width))
        except struct.error as error:
            raise UserError(f"{path}: cut short, not all its pages are there. Copy the file again.") from error
