"""A folder of DICOM slices as one volume, or a clear word about why it is none."""

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from autocrossdim.errors import UserError

# Scanners round positions to 0.1 mm or so: a 1.25 mm gap may read 1.2 or 1.3. A missing slice is 100 % off.
_UNEVEN = 0.1


def is_dicom_folder(folder: Path) -> bool:
    """Say whether `folder` directly holds at least one DICOM series."""
    return folder.is_dir() and bool(sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder)))


def series_files(folder: Path) -> list[str]:
    """Return the files of the one DICOM series in `folder`, in the order in which they are stacked.

    ITK stacks whatever carries one series number, two heart phases at one place included, with a warning.

    Raises:
        UserError: no series or several; several slices at one position; slices that are not parallel,
            not stacked along their normal, or unevenly spaced.
    """
    series = sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    if not series:
        raise UserError(f"{folder}: holds no DICOM series.")
    if len(series) > 1:
        raise UserError(
            f"{folder}: holds {len(series)} DICOM series ({', '.join(series)}). Put one in a folder of its own."
        )
    files = list(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0]))
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
