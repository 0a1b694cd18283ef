"""What ITK leaves to us in NRRD, MHA and TIFF files.

A NRRD file that ITK writes from an oblique image comes back changed in the last digit, so it is written with the
source's own lines about where voxels lie. A TIFF file that was cut short is read as a volume of fewer pages. A damaged
header of an MHA file ends the program (NDims of -1), or what is missing is filled with whatever the memory held before
(a DimSize larger than the compressed voxels).
"""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy.typing as npt

from autocrossdim.data.nifti import COMPRESSION
from autocrossdim.system.errors import UserError

_MARK = "nrrd:"
_TYPES = {"uint8": "uint8", "uint16": "uint16", "float32": "float"}
_KEPT = ("space", "spacings", "axis mins", "axis maxs", "centering")
_DEFLATE = 1032  # how many times smaller deflate can make anything, at most
_MHA_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "LONG_LONG": 8, "ULONG_LONG": 8, "DOUBLE": 8}  # else 4


def nrrd_header(path: Path) -> str | None:
    """Return the lines of a NRRD file's header that say where voxels lie, for `Geometry.header`.

    None if the file has an axis that is not one of space (colours), whose lines would not fit a label.
    """
    lines = _nrrd_lines(path)
    kept = [line for line in lines if line.lower().startswith(_KEPT)]
    if any("none" in line for line in kept):
        return None
    return _MARK + "\n".join(kept)


def _nrrd_lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        lines: list[str] = []
        while (line := file.readline().strip()) and len(lines) < 1000:
            lines.append(line.decode("ascii", errors="replace"))
    return lines


def check_nrrd(path: Path) -> None:
    """See that a NRRD file could hold as many voxels as its header says, before memory is asked for.

    Raises:
        UserError: it could not.
    """
    fields = dict(line.lower().split(":", 1) for line in _nrrd_lines(path) if ":" in line)
    sizes = [int(size) for size in re.findall(r"\d{1,18}", fields.get("sizes", ""))]
    if not sizes:
        raise UserError(f"{path}: not a NRRD file, or cut short: its header gives no sizes. Replace the file.")
    elsewhere = "data file" in fields or "datafile" in fields
    if not elsewhere and math.prod(sizes) > _DEFLATE * path.stat().st_size:
        raise UserError(f"{path}: too small for the {fields['sizes'].strip()} voxels of its header. Copy it again.")


def check_mha(path: Path) -> None:
    """See that an MHA file's header can be read safely and that the voxels it speaks of are there.

    Raises:
        UserError: they are not.
    """
    fields: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in fields and len(fields) < 1000 and (line := file.readline(1 << 16)):
            name, _, value = line.decode("ascii", errors="replace").partition("=")
            fields[name.strip()] = value.strip()
        dims, size = fields.get("NDims", ""), fields.get("DimSize", "")
        numbers = [int(n) for n in size.split()] if re.fullmatch(r"[\d ]{1,200}", size) else []
        if dims != str(len(numbers)) or not 1 <= len(numbers) <= 9 or min(numbers) < 1:
            raise UserError(f"{path}: a header with NDims = {dims[:20]!a} and DimSize = {size[:40]!a}. Replace it.")
        if fields.get("ElementDataFile") != "LOCAL" or fields.get("BinaryData", "").lower().startswith(("f", "0")):
            return
        channels = fields.get("ElementNumberOfChannels", "1")
        type_ = fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
        expected = math.prod(numbers) * _MHA_BYTES.get(type_, 4) * (int(channels) if channels.isdecimal() else 1)
        compressed = fields.get("CompressedData", "").lower().startswith(("t", "1"))
        try:
            there = _inflated(file, expected) if compressed else path.stat().st_size - file.tell()
        except zlib.error as error:
            raise UserError(f"{path}: damaged ({error}). Copy the file again.") from error
    if there < expected:
        raise UserError(f"{path}: cut short, {expected - there} bytes are missing. Copy the file again.")


def _inflated(file: BinaryIO, enough: int) -> int:
    """Return how many bytes the rest of a file inflates to; stops counting at `enough`."""
    inflate, count = zlib.decompressobj(wbits=47), 0  # zlib's or gzip's format
    while count < enough and (block := file.read(1 << 16)):
        count += len(inflate.decompress(block))
    return count


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
