"""A folder of DICOM slices as one volume, or a clear word about why it is none."""

import struct
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autocrossdim.system.errors import UserError

# Scanners round positions to 0.1 mm or so: a 1.25 mm gap may read 1.2 or 1.3. A missing slice is 100 % off.
_UNEVEN = 0.1

_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")  # 4-byte lengths
_IMPLICIT, _BIG_ENDIAN, _DEFLATED = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.2", b"1.2.840.10008.1.2.1.99"
_PIXELS, _ITEM, _SYNTAX = (0x7FE0, 0x0010), 0xFFFE, (0x0002, 0x0010)
_OPEN = 0xFFFFFFFF  # a length that says: until the delimiter


def is_dicom_folder(folder: Path) -> bool:
    """Say whether `folder` directly holds at least one DICOM series.

    Raises:
        UserError: a DICOM file there is damaged.
    """
    return folder.is_dir() and bool(_series(folder))


def _series(folder: Path) -> list[str]:
    for file in _marked(folder):
        check_dicom(file)
    return list(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))


def _marked(folder: Path) -> list[Path]:
    """The files in `folder` that say of themselves that they are DICOM."""
    marked = []
    for file in _files(folder):
        with file.open("rb") as stream:
            if stream.read(132)[128:] == b"DICM":
                marked.append(file)
    return marked


def _files(folder: Path) -> list[Path]:
    """The files in `folder` but for hidden ones and an index."""
    return [
        file
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name[0] != "." and file.name.upper() != "DICOMDIR"
    ]


def check_dicom(path: Path) -> None:
    """See that no element is longer than the file. GDCM asks for the memory first, gigabytes, and keeps it.

    Raises:
        UserError: one is.
    """
    size, position, syntax, pixels = path.stat().st_size, 132, b"", False
    with path.open("rb") as file:
        while position + 8 <= size and syntax != _DEFLATED:
            file.seek(position)
            head = file.read(12).ljust(12, b"\0")
            described = head[:2] == b"\2\0"  # the file's own description is always explicit and little endian
            order = ">" if syntax == _BIG_ENDIAN and not described else "<"
            group, element, length = struct.unpack(order + "HHI", head[:8])
            position += 8
            explicit = group != _ITEM and (described or syntax != _IMPLICIT)
            kind = head[4:6] if explicit else b""
            if explicit and not (kind.isalpha() and kind.isupper()):
                if not described:
                    return  # some scanners write what the standard does not know; GDCM may
                explicit, kind = False, b""  # so do some programs, in the file's description
            if kind in _LONG:
                length = struct.unpack(order + "I", head[8:])[0]
                position += 4
            elif explicit:
                length = struct.unpack(order + "H", head[6:8])[0]
            if length != _OPEN and position + length > size:
                raise UserError(
                    f"{path}: damaged: element ({group:04x},{element:04x}) is to have {length} bytes, more than there "
                    "are. Copy the file again."
                )
            if (group, element) == _SYNTAX:
                file.seek(position)
                syntax = file.read(length).rstrip(b"\0 ")
            pixels = pixels or (group, element) == _PIXELS
            # What holds other elements is gone into; the pieces of compressed pixels are not.
            if length != _OPEN and kind != b"SQ" and (group != _ITEM or pixels):
                position += length


def series_files(folder: Path) -> list[str]:
    """Return the files of the one DICOM series in `folder`, in the order in which they are stacked.

    ITK stacks whatever carries one series number, two heart phases at one place included, with a warning.

    Raises:
        UserError: no series or several; a file that is no slice of it; several slices at one position;
            slices that are not parallel, not stacked along their normal, or unevenly spaced.
    """
    series = _series(folder)
    if not series:
        raise UserError(f"{folder}: holds no DICOM series.")
    if len(series) > 1:
        raise UserError(
            f"{folder}: holds {len(series)} DICOM series ({', '.join(series)}). Put one in a folder of its own."
        )
    files = list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0]))
    names, endings = {Path(file).name for file in files}, {Path(file).suffix for file in files}
    # One that was cut short at its very beginning is known by its ending alone.
    slices = {file.name for file in _files(folder) if file.suffix in endings} | {file.name for file in _marked(folder)}
    if left_out := slices - names:
        raise UserError(
            f"{folder / min(left_out)}: no slice of the series beside it (damaged, or something else). "
            "Copy it again, or take it out of the folder."
        )
    if len(files) == 1:
        return files

    origins, directions = [], []
    for file in files:
        reader = sitk.ImageFileReader()
        reader.SetFileName(file)
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise UserError(f"{file}: cannot be read as DICOM. Copy the file again.") from error
        origins.append(reader.GetOrigin())
        directions.append(reader.GetDirection())
    if np.ptp(directions, axis=0).max() > 1e-3:
        raise UserError(f"{folder}: its slices are not parallel (a localiser?). Keep one stack of slices only.")

    place = np.array(origins)
    normal = np.array(directions[0]).reshape(3, 3)[:, 2]
    along = place @ normal
    order = np.argsort(along, kind="stable")
    gaps = np.diff(along[order])
    gap = float(np.median(gaps[gaps > 1e-3])) if np.any(gaps > 1e-3) else 0.0
    if np.any(gaps < 1e-3 * max(gap, 1.0)):
        positions = 1 + int(np.sum(gaps >= 1e-3 * max(gap, 1.0)))
        raise UserError(
            f"{folder}: {len(files)} slices at only {positions} positions, so several images "
            "(phases, echoes) lie at one place. Put one of them in a folder of its own."
        )
    if np.any(np.abs(gaps - gap) > _UNEVEN * gap):
        raise UserError(
            f"{folder}: slices are unevenly spaced ({gaps.min():.2f} to {gaps.max():.2f} mm): "
            "one is missing or too many. Complete the series or convert it yourself."
        )
    drift = place[order][1:] - place[order][:-1] - gaps[:, None] * normal
    if np.abs(drift).max() > _UNEVEN * gap:
        raise UserError(
            f"{folder}: slices are not stacked along their normal (tilted gantry). "
            "Straighten the series before, for example with dcm2niix."
        )
    return [files[i] for i in order]
