"""NIfTI files, versions 1 and 2: voxels and header are read and written here, geometry is interpreted by ITK.

ITK alone does not suffice: it reads a truncated file without an error (as zeros), turns NaN and infinite voxels into 0
and a spacing of zero or NaN into 1 mm, takes the voxels of `x.nii.gz` from an `x.nii` beside it, cannot read version 2,
and what it writes comes back up to 5e-6 off in its direction.
"""

import base64
import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from autocrossdim.data.limits import MAX_DEFLATE, MAX_TRAILING, check_declared
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import reading

Array = npt.NDArray[Any]

# Type and offset of the header's fields in use, by version of the format.
_FIELDS_1 = {
    "sizeof_hdr": ("i4", 0),
    "dim": ("8i2", 40),
    "intent_code": ("i2", 68),
    "datatype": ("i2", 70),
    "bitpix": ("i2", 72),
    "pixdim": ("8f4", 76),
    "vox_offset": ("f4", 108),
    "scl_slope": ("f4", 112),
    "scl_inter": ("f4", 116),
    "xyzt_units": ("u1", 123),
    "qform_code": ("i2", 252),
    "sform_code": ("i2", 254),
    "quatern": ("3f4", 256),
    "qoffset": ("3f4", 268),
    "srow": ("12f4", 280),
}
_FIELDS_2 = {
    "sizeof_hdr": ("i4", 0),
    "datatype": ("i2", 12),
    "bitpix": ("i2", 14),
    "dim": ("8i8", 16),
    "pixdim": ("8f8", 104),
    "vox_offset": ("i8", 168),
    "scl_slope": ("f8", 176),
    "scl_inter": ("f8", 184),
    "qform_code": ("i4", 344),
    "sform_code": ("i4", 348),
    "quatern": ("3f8", 352),
    "qoffset": ("3f8", 376),
    "srow": ("12f8", 400),
    "xyzt_units": ("i4", 500),
    "intent_code": ("i4", 504),
}
_BYTES_1, _BYTES_2 = 348, 540
_MAGIC_1, _MAGIC_2 = b"n+1\0", b"n+2\0\r\n\x1a\n"
_MAX_OFFSET = 2**28  # extensions between header and voxels are kilobytes, a CIFTI-2 file's are megabytes


def _layout(fields: dict[str, tuple[str, int]], size: int) -> np.dtype[np.void]:
    formats, offsets = zip(*fields.values(), strict=True)
    return np.dtype({"names": list(fields), "formats": formats, "offsets": offsets, "itemsize": size})


_HEADER_1, _HEADER_2 = _layout(_FIELDS_1, _BYTES_1), _layout(_FIELDS_2, _BYTES_2)
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
_CODES = {"uint8": 2, "int16": 4, "uint16": 512, "float32": 16}
_MARK = "nifti:"
# zlib level 5: labels compress as well as at 9, float maps in half the time.
COMPRESSION = 5


def read(path: Path, *, is_label: bool = False) -> tuple[Array, str]:
    """Read a `.nii` or `.nii.gz` file; its first bytes tell whether it is compressed.

    No more is read than the header declares.

    Args:
        path: File to read.
        is_label: Whether it is a label map, which may be compressed further than an image.

    Returns:
        The voxels in the order of the file (x fastest), shape (n,), or (n, 3) in colour, scaled as the header says;
        and as text, for `Geometry.header` and `write`, the header without descriptions, which may name the patient.

    Raises:
        UserError: Not a NIfTI file, truncated, damaged, larger than it can be, or with a spacing of zero or NaN.
    """
    voxels, header = _read_stored(path, is_label=is_label)
    fields = _fields(header)
    slope, inter = float(fields["scl_slope"]), float(fields["scl_inter"])
    if math.isfinite(slope) and math.isfinite(inter) and slope != 0 and (slope, inter) != (1, 0):
        voxels = voxels * slope + inter
    return voxels, _MARK + base64.b64encode(_without_texts(header)).decode()


def volumes(path: Path) -> list[bytes]:
    """Return the volumes of a 4D file as the contents of one uncompressed 3D file each.

    Voxels and geometry stay bit by bit what they are in the 4D file.

    Raises:
        UserError: As `read`; or the file has another number of axes.
    """
    voxels, header = _read_stored(path)
    fields = _fields(header)
    if int(fields["dim"][0]) != 4:
        raise UserError(f"{path}: {int(fields['dim'][0])} axes, but four are expected. Check the file.")
    count = int(fields["dim"][4])
    fields["dim"][0], fields["dim"][4], fields["vox_offset"] = 3, 1, len(header) + 4
    head = bytes(header) + bytes(4)  # four zeros: no extension of the header follows
    return [head + part.tobytes() for part in np.split(voxels, count)]


def count_volumes(path: Path) -> int | None:
    """Return the number of volumes of a 4D file, None for a 3D file. Only the header is read.

    Raises:
        UserError: Not a NIfTI file, truncated, or damaged.
    """
    with _opened(path) as (stream, _):
        fields = _fields(_read_header(stream))
        if fields is None:
            raise UserError(f"{path}: not a NIfTI file (wrong first bytes). Convert or replace it.")
        return int(fields["dim"][4]) if fields["dim"][0] >= 4 else None


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO | gzip.GzipFile, bool]]:
    """Yield a stream of a file's content, and whether the file is compressed."""
    with reading(path), path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        if not compressed:
            yield file, False
            return
        try:
            with gzip.GzipFile(fileobj=file) as stream:
                yield stream, True
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise UserError(f"{path}: truncated or damaged ({error}). Copy the file again.") from error


def _read_header(stream: BinaryIO | gzip.GzipFile) -> bytearray:
    header = bytearray(stream.read(_BYTES_1))
    if header[4:8] == _MAGIC_2[:4]:
        header += stream.read(_BYTES_2 - _BYTES_1)
    return header


def _read_stored(path: Path, *, is_label: bool = False) -> tuple[Array, bytearray]:
    """Return the voxels as they are stored, in the order of the file, and the header."""
    with _opened(path) as (stream, compressed):
        return _read(path, stream, compressed, is_label)


def _read(path: Path, stream: BinaryIO | gzip.GzipFile, compressed: bool, is_label: bool) -> tuple[Array, bytearray]:
    header = _read_header(stream)
    fields = _fields(header)
    if fields is None:
        raise UserError(f"{path}: not a NIfTI file (wrong first bytes). Convert or replace it.")
    _check_header(path, fields)
    kind = np.dtype(_TYPES[int(fields["datatype"])]).newbyteorder(fields.dtype["datatype"].byteorder)
    count, start = _count(fields), max(int(fields["vox_offset"]), len(header))
    declared = count * kind.itemsize
    size = path.stat().st_size
    if start + declared > size * (MAX_DEFLATE if compressed else 1):
        raise UserError(
            f"{path}: truncated: the header declares {declared:,} bytes of voxels, the file has {size:,} bytes in all"
            f"{' (compressed)' if compressed else ''}. Copy the file again."
        )
    check_declared(path, declared, is_label=is_label)

    stream.read(start - len(header))
    content = stream.read(declared)
    if len(content) < declared:
        raise UserError(f"{path}: truncated, {declared - len(content):,} bytes are missing. Copy the file again.")
    if compressed:
        _check_rest(path, stream, max(declared, MAX_TRAILING))
    voxels: Array = np.frombuffer(content, kind, count)
    return voxels, header


def _check_header(path: Path, fields: Any) -> None:
    """Check what the voxels are read by.

    Raises:
        UserError: An axis without voxels, an invalid spacing, another type of voxels, or an impossible offset.
    """
    dims, code = int(fields["dim"][0]), int(fields["datatype"])
    spacing = [float(size) for size in fields["pixdim"][1 : min(dims, 3) + 1]]
    if not all(math.isfinite(size) and size != 0 for size in spacing):
        raise UserError(f"{path}: the header declares a spacing of {spacing} mm (x, y, z). Fix the header.")
    if code not in _TYPES:
        raise UserError(f"{path}: voxels of NIfTI data type {code} (complex?) are not supported. Convert the file.")
    if not 0 <= float(fields["vox_offset"]) <= _MAX_OFFSET:
        raise UserError(f"{path}: the header places the voxels at byte {fields['vox_offset']}. Fix the header.")
    if min(int(n) for n in fields["dim"][1 : dims + 1]) < 1:
        raise UserError(f"{path}: the header declares an axis without voxels. Fix the header.")


def _check_rest(path: Path, stream: BinaryIO | gzip.GzipFile, most: int) -> None:
    """Read a compressed file to its end, where its checksum is compared.

    Raises:
        UserError: The content is larger than `most` bytes.
    """
    rest = 0
    while block := stream.read(2**20):
        rest += len(block)
        if rest > most:
            raise UserError(f"{path}: contains far more data than its header declares. Fix or replace the file.")


def _without_texts(header: bytearray) -> bytearray:
    """Return a header with the fields in use only: without texts, and without the range in which viewers display."""
    kept = bytearray(len(header))
    magic = slice(4, 4 + len(_MAGIC_2)) if len(header) == _BYTES_2 else slice(-len(_MAGIC_1), None)
    kept[magic] = header[magic]
    source = _fields(header)
    target = np.frombuffer(kept, source.dtype)[0]
    for name in source.dtype.names:
        target[name] = source[name]
    return kept


@contextmanager
def readable_by_itk(path: Path, header: str) -> Iterator[Path]:
    """Yield a file from which ITK reads the geometry: the file itself, or the header of version 2 as version 1.

    Version 1 rounds spacing and position to float32, which ITK also does with the files that it can read.

    Raises:
        UserError: An axis has more voxels than version 1 can express.
    """
    raw = base64.b64decode(header.removeprefix(_MARK))
    if len(raw) == _BYTES_1:
        yield path
        return
    with TemporaryDirectory() as folder:
        twin = Path(folder) / "header.nii"
        twin.write_bytes(_as_version_1(path, raw) + bytes(4))
        yield twin


def _as_version_1(path: Path, header: bytes) -> bytes:
    fields = _fields(bytearray(header))
    if max(fields["dim"]) > np.iinfo(np.int16).max:
        raise UserError(f"{path}: an axis of {max(fields['dim']):,} voxels; at most 32,767 are supported. Crop it.")
    raw = bytearray(_BYTES_1)
    twin = np.frombuffer(raw, _HEADER_1.newbyteorder("<"))[0]
    for name in _FIELDS_1:
        twin[name] = fields[name]
    twin["sizeof_hdr"], twin["vox_offset"] = _BYTES_1, _BYTES_1 + 4
    raw[-len(_MAGIC_1) :] = _MAGIC_1
    return bytes(raw)


def is_header(text: str | None) -> bool:
    """Whether `text` is a header that `read` returned."""
    return text is not None and text.startswith(_MARK)


def write(path: Path, array: Array, header: str) -> None:
    """Write `array`, (Z, Y, X) or (Y, X) of uint8, int16, uint16 or float32, with a header that `read` returned."""
    raw = bytearray(base64.b64decode(header.removeprefix(_MARK)))
    fields = _fields(raw)
    if _count(fields) != array.size:  # the source held several values per voxel
        fields["dim"] = (array.ndim, *array.shape[::-1], *[1] * (7 - array.ndim))
    fields["datatype"] = _CODES[array.dtype.name]
    fields["bitpix"] = array.dtype.itemsize * 8
    fields["vox_offset"] = len(raw) + 4
    fields["scl_slope"], fields["scl_inter"], fields["intent_code"] = 1, 0, 0
    voxels = array.astype(array.dtype.newbyteorder(fields.dtype["datatype"].byteorder))
    content = bytes(raw) + bytes(4) + voxels.tobytes()  # four zeros: no extension of the header follows
    path.write_bytes(gzip.compress(content, COMPRESSION, mtime=0) if path.suffix.lower() == ".gz" else content)


def _count(fields: Any) -> int:
    """Return the number of voxels that a header declares."""
    return math.prod(int(n) for n in fields["dim"][1 : int(fields["dim"][0]) + 1])


def states_orientation(header: str) -> bool:
    """Whether a header that `read` returned has a coordinate system: a qform or sform code above 0."""
    fields = _fields(bytearray(base64.b64decode(header.removeprefix(_MARK))))
    return fields is not None and bool(fields["qform_code"] > 0 or fields["sform_code"] > 0)


def _fields(header: bytearray) -> Any:
    """Return a view of a NIfTI header by field name; None if it is not such a header."""
    if len(header) == _BYTES_1 and header[-4:-1] == _MAGIC_1[:3]:
        layout = _HEADER_1
    elif len(header) == _BYTES_2 and header[4:12] == _MAGIC_2:
        layout = _HEADER_2
    else:
        return None
    for order in "<>":
        fields = np.frombuffer(header, layout.newbyteorder(order))[0]  # type: ignore[arg-type]
        if 1 <= fields["dim"][0] <= 7:  # how the format reveals its byte order
            return fields
    return None
