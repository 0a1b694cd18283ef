"""Voxels of NIfTI files, and files written with the header of another; where voxels lie, ITK tells.

ITK alone will not do: it reads a file that was cut short without a word (with zeros), turns NaN and infinite
voxels into 0 and a spacing of zero or NaN into 1 mm, takes the voxels of `x.nii.gz` from `x.nii` if that lies
beside it, and what it writes comes back up to 5e-6 off in its direction.
"""

import base64
import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autocrossdim.system.errors import UserError

Array = npt.NDArray[Any]

# The fields in use of the NIfTI-1 header and their offsets. ITK does not read NIfTI-2.
_FIELDS = {
    "dim": ("8i2", 40),
    "intent_code": ("i2", 68),
    "datatype": ("i2", 70),
    "bitpix": ("i2", 72),
    "pixdim": ("8f4", 76),
    "vox_offset": ("f4", 108),
    "scl_slope": ("f4", 112),
    "scl_inter": ("f4", 116),
}
_BYTES = 348
_HEADER = np.dtype(
    {
        "names": list(_FIELDS),
        "formats": [form for form, _ in _FIELDS.values()],
        "offsets": [offset for _, offset in _FIELDS.values()],
        "itemsize": _BYTES,
    }
)
_TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    128: "3u1",  # RGB
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
_CODES = {"uint8": 2, "uint16": 512, "float32": 16}
_MARK = "nifti:"
# zlib level 5: labels compress as well as at 9, float maps in half the time.
COMPRESSION = 5


def read(path: Path) -> tuple[Array, str]:
    """Read a `.nii` or `.nii.gz` file; whether it is compressed is told by its first bytes.

    Returns:
        The voxels as they follow each other in the file (x fastest), shape (n,), or (n, 3) in colour, scaled
        as the header says; and the header as text, for `Geometry.header` and `write`.

    Raises:
        UserError: not a NIfTI-1 file, cut short, damaged, or with a spacing of zero or NaN.
    """
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)  # checks length and checksum
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(f"{path}: cut short or damaged ({error}). Copy the file again.") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    header = bytearray(content[:_BYTES])
    fields = _fields(header)
    if fields is None:
        raise UserError(f"{path}: not a NIfTI-1 file (its first bytes say so). Convert or replace it.")
    dims, code = int(fields["dim"][0]), int(fields["datatype"])
    spacing = [float(size) for size in fields["pixdim"][1 : min(dims, 3) + 1]]
    if not all(math.isfinite(size) and size != 0 for size in spacing):
        raise UserError(f"{path}: the header gives a spacing of {spacing} mm (x, y, z). Mend the header.")
    if code not in _TYPES:
        raise UserError(f"{path}: voxels of NIfTI data type {code} (complex?) are not read. Convert the file.")

    kind = np.dtype(_TYPES[code]).newbyteorder(fields.dtype["datatype"].byteorder)
    count = _count(fields)
    if not 0 <= float(fields["vox_offset"]) < 2**31:
        raise UserError(f"{path}: the header says its voxels start at byte {fields['vox_offset']}. Mend the header.")
    start = max(int(fields["vox_offset"]), _BYTES)
    missing = start + count * kind.itemsize - len(content)
    if min(int(n) for n in fields["dim"][1 : dims + 1]) < 1:
        raise UserError(f"{path}: the header gives it an axis without voxels. Mend the header.")
    if missing > 0:
        raise UserError(f"{path}: cut short, {missing} bytes are missing. Copy the file again.")
    voxels: Array = np.frombuffer(content, kind, count, start)
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    if math.isfinite(slope) and math.isfinite(inter) and slope != 0 and (slope, inter) != (1, 0):
        voxels = voxels * slope + inter
    return voxels, _MARK + base64.b64encode(header).decode()


def is_header(text: str | None) -> bool:
    """Say whether `text` is a header that `read` returned."""
    return text is not None and text.startswith(_MARK)


def write(path: Path, array: Array, header: str) -> None:
    """Write `array`, (Z, Y, X) or (Y, X) of uint8, uint16 or float32, with a header that `read` returned."""
    raw = bytearray(base64.b64decode(header.removeprefix(_MARK)))
    fields = _fields(raw)
    assert fields is not None
    if _count(fields) != array.size:  # the source held several values a voxel
        fields["dim"] = (array.ndim, *array.shape[::-1], *[1] * (7 - array.ndim))
    fields["datatype"] = _CODES[array.dtype.name]
    fields["bitpix"] = array.dtype.itemsize * 8
    fields["vox_offset"] = _BYTES + 4
    fields["scl_slope"], fields["scl_inter"], fields["intent_code"] = 1, 0, 0
    voxels = array.astype(array.dtype.newbyteorder(fields.dtype["datatype"].byteorder))
    content = bytes(raw) + bytes(4) + voxels.tobytes()  # four zeros: no extension of the header follows
    path.write_bytes(gzip.compress(content, COMPRESSION, mtime=0) if path.suffix.lower() == ".gz" else content)


def _count(fields: Any) -> int:
    """Return how many voxels a header speaks of."""
    return math.prod(int(n) for n in fields["dim"][1 : int(fields["dim"][0]) + 1])


def _fields(header: bytearray) -> Any:
    """Give a view of a NIfTI-1 header by field name; None if it is no such header."""
    if len(header) < _BYTES or bytes(header[344:347]) != b"n+1":
        return None
    for dtype in (_HEADER.newbyteorder("<"), _HEADER.newbyteorder(">")):
        fields = np.frombuffer(header, dtype)[0]
        if 1 <= fields["dim"][0] <= 7:  # the format's own way to tell the byte order
            return fields
    return None
