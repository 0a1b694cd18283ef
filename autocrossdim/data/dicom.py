"""Directories of DICOM slices: found, checked, and put in order.

ITK stacks whatever carries one series number, and GDCM asks for as much memory as a damaged file says, so both happen
here before either is called.
"""

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autocrossdim.system.errors import UserError
from autocrossdim.system.files import library_path, list_directory, reading
from autocrossdim.system.text import counted, listed

# Scanners round positions to about 0.1 mm: a gap of 1.25 mm may read 1.2 or 1.3. A missing slice doubles the gap.
_UNEVEN = 0.1
SPACING_TOLERANCE = 1e-3
"""Largest difference of pixel spacings within a series, as a share of the spacing."""

# Files looked at before a directory (with its subdirectories) is taken for something else. The first slice found ends
# the search in its directory, so the number of slices does not count.
MAX_SEARCHED = 20_000

Tag = tuple[int, int]
"""Group and element."""

_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")  # 4-byte lengths
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"
_PIXELS, _ITEM, _SYNTAX = (0x7FE0, 0x0010), 0xFFFE, (0x0002, 0x0010)
ORIENTATION = (0x0020, 0x0037)  # directions of rows and columns
PLACES = {
    "positions": ((0x0020, 0x9113), (0x0020, 0x0032)),
    "directions": ((0x0020, 0x9116), ORIENTATION),
    "spacing": ((0x0028, 0x9110), (0x0028, 0x0030)),
    "slopes": ((0x0028, 0x9145), (0x0028, 0x1053)),
    "intercepts": ((0x0028, 0x9145), (0x0028, 0x1052)),
}
"""Where a file describes its frames: the sequence, and the element in it. Both are in a sequence that is shared by all
frames, or in another one with an item per frame."""
_DESCRIBED = {(0x5200, 0x9229), (0x5200, 0x9230), *(sequence for sequence, _ in PLACES.values())}
_SEQUENCE_END = (_ITEM, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF  # a length that means: until the delimiter
_PREAMBLE = 128  # bytes before the letters DICM

# SOP classes (0002,0002) of objects that accompany images: presentation states (11), segmentations, surfaces and
# registrations (66), value mappings (67), structured reports (88), documents (104), and doses, structures and plans of
# radiotherapy, but not its images (481.1, 481.23 and 481.24). The four bytes between tag and value are type and length,
# or the length alone.
_BESIDE_IMAGES = re.compile(
    rb"\x02\0\x02\0.{4}1\.2\.840\.10008\.5\.1\.4\.1\.1\.(11|66|67|88|104|481\.([2-9]|1[0-9]|2[0-2]))(?![0-9])",
    re.DOTALL,
)
_FIRST_BYTES = 512


@reading()
def dicom_folders(folder: Path) -> list[Path]:
    """Return `folder` and its subdirectories, those that directly hold DICOM slices, sorted by name.

    Raises:
        UserError: No access, or too many other files.
    """
    budget = iter(range(MAX_SEARCHED))
    folders = [folder, *(entry for entry in list_directory(folder) if entry.is_dir())]
    return [candidate for candidate in folders if _holds_slices(candidate, budget)]


def _holds_slices(folder: Path, budget: Iterator[int]) -> bool:
    with os.scandir(folder) as entries:
        for entry in entries:
            if next(budget, None) is None:
                raise UserError(
                    f"{folder}: no image among the first {MAX_SEARCHED:,} files. Choose the directory with the images."
                )
            if is_dicom(Path(entry)) and not _accompanies_images(Path(entry)):
                return True
    return False


def _is_visible_file(path: Path) -> bool:
    """Whether `path` may be a slice: not a directory, pipe or device, not hidden, and not the index of a medium."""
    return path.name[0] != "." and path.name.upper() != "DICOMDIR" and path.is_file()


@reading()
def is_dicom(path: Path) -> bool:
    """Whether a path is a file that declares itself as DICOM, or begins as files without the declaration do."""
    return _is_visible_file(path) and _is_marked(path)


def _is_marked(path: Path) -> bool:
    """Whether a file declares itself as DICOM, or begins with an element of DICOM where the declaration is missing."""
    if path.stat().st_size <= _PREAMBLE:  # as the endless files in /proc, whose size is 0
        return False
    with path.open("rb") as stream:
        start = stream.read(_PREAMBLE + 4)
    if start[_PREAMBLE:] == b"DICM":
        return True
    if len(start) < _PREAMBLE:  # a file of /sys can be shorter than the size it states
        return False
    group, element, length = struct.unpack("<HHI", start[:8])
    explicit = start[4:6].isalpha() and start[4:6].isupper()
    return group in (2, 8) and element <= 0x18 and (explicit or length <= 64)  # the first elements in use are short


def _accompanies_images(path: Path) -> bool:
    """Whether a DICOM file is a segmentation, a report or another object that lies beside images."""
    with path.open("rb") as stream:
        return _BESIDE_IMAGES.search(stream.read(_FIRST_BYTES)) is not None


def _series(folder: Path) -> list[list[str]]:
    """Return the files of each series of images."""
    for path in list_directory(folder):
        if not path.is_file() and not path.is_dir():
            raise UserError(f"{path}: neither a file nor a directory. Take it out of the directory of DICOM slices.")
        library_path(path)
    marked = _marked(folder)
    for file in marked:
        check_dicom(file)
    place, reader = library_path(folder), sitk.ImageSeriesReader
    found = [reader.GetGDCMSeriesFileNames(place, uid) for uid in reader.GetGDCMSeriesIDs(place)] if marked else []
    images = ([file for file in files if not _accompanies_images(Path(file))] for files in found)
    return [files for files in images if files]


def _marked(folder: Path) -> list[Path]:
    return [file for file in _files(folder) if _is_marked(file)]


def _files(folder: Path) -> list[Path]:
    return [file for file in list_directory(folder) if _is_visible_file(file)]


def check_dicom(path: Path) -> None:
    """Check that no element is longer than the file; GDCM would allocate that length, gigabytes, and keep it.

    Raises:
        UserError: An element is longer than the file.
    """
    for _ in elements(path):
        pass


def states_orientation(path: Path) -> bool:
    """Whether a slice states the directions of its rows and columns. If not, GDCM reads it as an axial slice.

    Files with several frames and those of nuclear medicine state them inside a sequence.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    key = f"{ORIENTATION[0]:04x}|{ORIENTATION[1]:04x}"
    if reader.HasMetaDataKey(key):
        return bool(reader.GetMetaData(key).strip())
    return any(tag == ORIENTATION and length > 0 for _, tag, _, length in elements(path))


def elements(path: Path) -> Iterator[tuple[Tag, Tag, int, int]]:
    """Yield the elements of a DICOM file, also those inside sequences.

    Each is given by the tag of the sequence that began last, its own tag, and the position and length of its value.

    The walk ends early where the file leaves the standard, or where its content is compressed.

    Raises:
        UserError: An element is longer than the file.
    """
    size, position, syntax, pixels, sequence = path.stat().st_size, _PREAMBLE + 4, b"", False, (0, 0)
    with path.open("rb") as file:
        if file.read(position)[_PREAMBLE:] != b"DICM":
            return  # without a declaration, in which byte order and form is anybody's guess
        while position + 8 <= size and syntax != _DEFLATED:
            file.seek(position)
            head = file.read(12).ljust(12, b"\0")
            meta = head[:2] == b"\2\0"  # the file's meta information is always explicit and little endian
            order = ">" if syntax == _BIG_ENDIAN and not meta else "<"
            group, element, length = struct.unpack(order + "HHI", head[:8])
            position += 8
            explicit = group != _ITEM and (meta or syntax != _IMPLICIT)
            kind = head[4:6] if explicit else b""
            if explicit and not (kind.isalpha() and kind.isupper()):
                if not meta:
                    return  # some scanners write elements outside the standard, which GDCM may read
                explicit, kind = False, b""  # some programs write implicit meta information
            if kind in _LONG:
                length = struct.unpack(order + "I", head[8:])[0]
                position += 4
            elif explicit:
                length = struct.unpack(order + "H", head[6:8])[0]
            if length != _UNDEFINED and position + length > size:
                raise UserError(
                    f"{path}: damaged: element ({group:04x},{element:04x}) has a length of {length:,} bytes, but the "
                    f"file has {size:,}. Copy the file again."
                )
            if (group, element) == _SYNTAX:
                file.seek(position)
                syntax = file.read(length).rstrip(b"\0 ")
            yield sequence, (group, element), position, length
            # Sequences and items are descended into, except for fragments of compressed pixels, also of an icon.
            if (group, element) in (_PIXELS, _SEQUENCE_END):
                pixels = (group, element) == _PIXELS and length == _UNDEFINED
            if group == _ITEM:
                position += length if pixels and length != _UNDEFINED else 0
            elif length == _UNDEFINED or kind == b"SQ" or (group, element) in _DESCRIBED:
                sequence = (group, element)
            else:
                position += length


@reading()
def series_files(folder: Path) -> list[str]:
    """Return the files of the one DICOM series of images in `folder`, ordered along the slices' normal.

    Segmentations, contours and reports beside them are left out.

    ITK would stack all files with one series number, even two heart phases at one position, with a mere warning.

    Raises:
        UserError: No series or several; a file that is not one of its slices; several slices at one position;
            slices that are not parallel, not stacked along their normal, or unevenly spaced.
    """
    series = _series(folder)
    if not series:
        raise UserError(f"{folder}: contains no DICOM series. Choose a directory with DICOM slices.")
    if len(series) > 1:
        # Not the series UIDs: with access to the hospital's archive, they lead to the patient.
        first = sorted(Path(files[0]).name for files in series)
        raise UserError(
            f"{folder}: contains {len(series)} DICOM series (first slices: {listed(first)}). Move each to a directory "
            "of its own."
        )
    files = series[0]
    names, endings = {Path(file).name for file in files}, {Path(file).suffix for file in files}
    # A slice truncated within its first bytes is recognised by its ending alone.
    slices = {file for file in _files(folder) if file.suffix in endings or _is_marked(file)}
    left_out = sorted(file for file in slices if file.name not in names and not _accompanies_images(file))
    if left_out:
        raise UserError(
            f"{left_out[0]}: not a slice of the series beside it (damaged, or another kind of file). "
            "Copy it again, or take it out of the directory."
        )
    return stacked(folder, files)


def stacked(folder: Path, files: list[str]) -> list[str]:
    """Return slices, given in any order, ordered along their normal.

    Args:
        folder: Directory of the slices, for messages.
        files: DICOM files with one slice each.

    Raises:
        UserError: A file cannot be read; several slices at one position; slices that are not parallel, not stacked
            along their normal, unevenly spaced, or of different pixel spacings.
    """
    if len(files) < 2:
        return files
    origins, directions, spacing = _positions(files)
    if np.ptp(spacing, axis=0).max() > SPACING_TOLERANCE * spacing.min():
        odd = files[int(np.abs(spacing - np.median(spacing, axis=0)).max(axis=1).argmax())]
        raise UserError(
            f"{odd}: its pixel spacing differs from that of other slices in {folder}. Keep the slices of one stack "
            "only."
        )
    return [files[index] for index in stacking_order(folder, origins, directions)]


@reading()
def slice_files(folder: Path) -> list[Path]:
    """Return the DICOM files that directly lie in `folder`, sorted by name, whatever series they declare.

    Raises:
        UserError: The directory cannot be read, or a file is damaged.
    """
    files = _marked(folder)
    for file in files:
        library_path(file)
        check_dicom(file)
    return files


def _positions(files: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the origin (n, 3) in mm, the direction matrix (n, 9) and the pixel spacing (n, 2) in mm of each slice."""
    origins, directions, spacing = [], [], []
    for file in files:
        reader = sitk.ImageFileReader()
        reader.SetFileName(file)
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise UserError(f"{file}: cannot be read as DICOM. Copy the file again.") from error
        origins.append(reader.GetOrigin())
        directions.append(reader.GetDirection())
        spacing.append(reader.GetSpacing()[:2])
    return np.array(origins), np.array(directions), np.array(spacing)


def stacking_order(path: Path, origins: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Return the order of slices along their normal, after checking that they form a volume.

    Args:
        path: Directory of the slices, or the file with all of them, for messages.
        origins: Position of the first voxel of each slice in mm, shape (n, 3).
        directions: ITK's direction matrix of each slice, row by row, shape (n, 9).

    Raises:
        UserError: Several slices at one position; slices that are not parallel, not stacked along their normal, or
            unevenly spaced.
    """
    if np.ptp(directions, axis=0).max() > 1e-3:
        raise UserError(f"{path}: its slices are not parallel (a localiser?). Keep the slices of one stack only.")
    normal = directions[0].reshape(3, 3)[:, 2]
    along = origins @ normal
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    gap = float(np.median(gaps[gaps > 1e-3])) if np.any(gaps > 1e-3) else 0.0
    if np.any(gaps < 1e-3 * max(gap, 1.0)):
        positions = 1 + int(np.sum(gaps >= 1e-3 * max(gap, 1.0)))
        raise UserError(
            f"{path}: {counted(len(origins), 'slice')} at only {counted(positions, 'position')}: it holds several "
            "images (phases, echoes). Separate them, each in a directory of its own."
        )
    if np.any(np.abs(gaps - gap) > _UNEVEN * gap):
        raise UserError(
            f"{path}: the slices are unevenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm), so a slice is "
            "missing or does not belong there. Complete the series or convert it yourself."
        )
    drift = origins[order][1:] - origins[order][:-1] - gaps[:, None] * normal
    if np.abs(drift).max() > _UNEVEN * gap:
        raise UserError(
            f"{path}: the slices are not stacked along their normal (tilted gantry). "
            "Straighten the series first, for example with dcm2niix."
        )
    return order
