"""Checks of NRRD, MHA and TIFF files that ITK omits, and NRRD files written with the header of another.

The geometry of an oblique NRRD file written by ITK comes back changed in the last digit, so it is written with the
geometry lines of its source. ITK reads a truncated TIFF file as a volume of fewer pages. A damaged header of an MHA
file ends the process (NDims of -1), and missing voxels are filled with arbitrary memory (DimSize larger than the
compressed voxels).
"""

import gzip
import math
import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any, BinaryIO

import numpy.typing as npt

from autocrossdim.data.limits import MAX_DEFLATE, MAX_TRAILING, check_declared
from autocrossdim.data.nifti import COMPRESSION
from autocrossdim.system.errors import UserError

_MARK = "nrrd:"
_TYPES = {"uint8": "uint8", "uint16": "uint16", "float32": "float"}
_KEPT = ("space", "spacings", "axis mins", "axis maxs", "centering")
_ANATOMICAL = {"right-anterior-superior", "left-anterior-superior", "left-posterior-superior", "ras", "las", "lps"}
_MHA_MATRICES = ("TransformMatrix", "Orientation", "Rotation")  # the names that ITK reads
_MAX_LINES, _MAX_LINE = 1000, 2**14  # lines of a header, and bytes of a line
_MHA_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "LONG_LONG": 8, "ULONG_LONG": 8, "DOUBLE": 8}  # else 4


def nrrd_header(path: Path) -> str | None:
    """Return the geometry lines of a NRRD file's header, for `Geometry.header`.

    None if the file has an axis other than those of space (colours), because a label has no such axis.
    """
    lines = _nrrd_lines(path)
    kept = [line for line in lines if line.lower().startswith(_KEPT)]
    if any("none" in line for line in kept):
        return None
    return _MARK + "\n".join(kept)


def nrrd_states_orientation(path: Path) -> bool:
    """Whether a NRRD file has a coordinate system of the patient: a `space` of that kind, and directions."""
    fields = dict(line.lower().split(":", 1) for line in _nrrd_lines(path) if ":" in line)
    return fields.get("space", "").strip() in _ANATOMICAL and "space directions" in fields


def mha_states_orientation(path: Path) -> bool:
    """Whether an MHA or MHD file states its orientation.

    Without a matrix, ITK reads the axes as `RAI` (MetaImage's word for x to the left, y to the back, z upwards),
    whatever the anatomical orientation in the header says.
    """
    with path.open("rb") as file:
        fields = _mha_fields(file)
    return any(name in fields for name in _MHA_MATRICES) or fields.get("AnatomicalOrientation") == "RAI"


def _nrrd_lines(path: Path) -> list[str]:
    with path.open("rb") as file:
        return list(takewhile(bool, _lines(file)))


def _lines(file: BinaryIO) -> Iterator[str]:
    """Yield the first lines of a file, without surrounding blanks; no more than a header may have."""
    for _ in range(_MAX_LINES):
        if not (line := file.readline(_MAX_LINE)):
            return
        yield line.decode("ascii", errors="replace").strip()


def check_nrrd(path: Path) -> None:
    """Check that a NRRD file can hold the voxels its header declares, before memory is allocated.

    Raises:
        UserError: It cannot.
    """
    fields = dict(line.lower().split(":", 1) for line in _nrrd_lines(path) if ":" in line)
    sizes = [int(size) for size in re.findall(r"\d{1,18}", fields.get("sizes", ""))]
    if not sizes:
        raise UserError(f"{path}: not a NRRD file, or truncated: its header declares no sizes. Replace the file.")
    elsewhere = "data file" in fields or "datafile" in fields
    if not elsewhere and math.prod(sizes) > MAX_DEFLATE * path.stat().st_size:
        raise UserError(
            f"{path}: truncated: the header declares {fields['sizes'].strip()} voxels. Copy the file again."
        )


def check_mha(path: Path, *, is_label: bool = False) -> None:
    """Check that ITK can read an MHA file's header safely and that the voxels it declares are present.

    Raises:
        UserError: Invalid header, or voxels missing or far too many.
    """
    with path.open("rb") as file:
        fields = _mha_fields(file)
        declared = _mha_bytes(path, fields)
        elsewhere = fields.get("ElementDataFile") != "LOCAL"
        if elsewhere or fields.get("BinaryData", "").lower().startswith(("f", "0")):
            return
        compressed = fields.get("CompressedData", "").lower().startswith(("t", "1"))
        stored = path.stat().st_size - file.tell()
        if declared > stored * (MAX_DEFLATE if compressed else 1):
            raise UserError(
                f"{path}: truncated: the header declares {declared:,} bytes of voxels, the file has {stored:,} bytes "
                f"{'of compressed' if compressed else 'of'} data. Copy the file again."
            )
        if compressed:
            check_declared(path, declared, is_label=is_label)
            _check_compressed(path, file, declared)


def mhd_bytes(path: Path) -> int:
    """Return the number of bytes that the voxels of an MHD file have, by its header.

    Raises:
        UserError: Invalid header.
    """
    with path.open("rb") as file:
        return _mha_bytes(path, _mha_fields(file))


def _mha_fields(file: BinaryIO) -> dict[str, str]:
    """Return the header of an MHA or MHD file, up to the name of the file with the voxels."""
    fields: dict[str, str] = {}
    for line in _lines(file):
        name, _, value = line.partition("=")
        fields[name.strip()] = value.strip()
        if "ElementDataFile" in fields:
            break
    return fields


def _mha_bytes(path: Path, fields: Mapping[str, str]) -> int:
    """Return the number of bytes the voxels of an MHA file have, by its header."""
    dims, size = fields.get("NDims", ""), fields.get("DimSize", "")
    numbers = [int(n) for n in size.split()] if re.fullmatch(r"[\d ]{1,200}", size) else []
    if dims != str(len(numbers)) or not 1 <= len(numbers) <= 9 or min(numbers) < 1:
        raise UserError(f"{path}: invalid header: NDims = {dims[:20]!a}, DimSize = {size[:40]!a}. Replace the file.")
    channels = fields.get("ElementNumberOfChannels", "1")
    kind = fields.get("ElementType", "").removeprefix("MET_").removesuffix("_ARRAY")
    return math.prod(numbers) * _MHA_BYTES.get(kind, 4) * (int(channels) if channels.isdecimal() else 1)


def _check_compressed(path: Path, file: BinaryIO, declared: int) -> None:
    """Check that the rest of a file inflates to at least `declared` bytes, and not to far more."""
    most = declared + max(declared, MAX_TRAILING)
    try:
        present = _inflated_size(file, most)
    except zlib.error as error:
        raise UserError(f"{path}: damaged ({error}). Copy the file again.") from error
    if present < declared:
        raise UserError(f"{path}: truncated, {declared - present:,} bytes are missing. Copy the file again.")
    if present > most:
        raise UserError(f"{path}: contains far more data than its header declares. Fix or replace the file.")


def _inflated_size(file: BinaryIO, most: int) -> int:
    """Return the number of bytes the rest of a file inflates to; counting stops beyond `most`."""
    inflate, count = zlib.decompressobj(wbits=47), 0  # zlib's or gzip's format
    while count <= most and (block := file.read(2**16)):
        count += len(inflate.decompress(block))  # at most 1032 times a block at a time
    return count


def is_nrrd_header(text: str | None) -> bool:
    """Whether `text` is a header that `nrrd_header` returned."""
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
    """Check that the chain of a TIFF file's pages ends inside the file.

    Raises:
        UserError: The file is not a TIFF or is truncated.
    """
    with path.open("rb") as file:
        start = file.read(16)
        order = {b"II": "<", b"MM": ">"}.get(start[:2])
        try:
            if order is None:
                raise UserError(f"{path}: not a TIFF file (wrong first bytes). Replace the file.")
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
            raise UserError(f"{path}: truncated: pages are missing. Copy the file again.") from error
