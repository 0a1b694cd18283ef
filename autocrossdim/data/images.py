"""Image and label files of every format: read as arrays (z, y, x) with their geometry, and written."""

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from autocrossdim.data import dicom, headers, nifti, pictures
from autocrossdim.data.dicom_frames import read_frames
from autocrossdim.data.geometry import Geometry, Image, same_place
from autocrossdim.data.itk import array_from_itk, geometry_from_itk, reason, to_itk, write_itk
from autocrossdim.data.limits import check_declared
from autocrossdim.data.pictures import PICTURES, spacing_file
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import library_path, reading, write_json, written_whole
from autocrossdim.system.text import shown_path

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".bmp", ".tif", ".tiff")


def file_ending(path: Path) -> str:
    """Return the ending of an image file, such as `.nii.gz`.

    Raises:
        UserError: A format that is not supported.
    """
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return ending
    raise UserError(f"{shown_path(path)}: not a supported format. Convert it to one of {', '.join(ENDINGS)}.")


def read_image(paths: Sequence[Path]) -> Image:
    """Read one image: one file per channel, one RGB(A) file with three channels, or the directory of a DICOM series.

    Raises:
        UserError: A file is missing, unreadable, truncated, 4D or complex, has no valid spacing or far more voxels
            than its size allows, or the channels' geometries differ.
    """
    with reading():
        is_series = len(paths) == 1 and Path(paths[0]).is_dir() and not Path(paths[0]).name.endswith(ENDINGS)
    if is_series:
        return read_dicom_series(Path(paths[0]))
    arrays, geometries = [], []
    for path in map(Path, paths):
        array, geometry = _read(path)
        arrays.append(array)
        geometries.append(geometry)
        if difference := same_place(geometries[0], geometry):
            first = Path(paths[0]).name
            raise UserError(f"{path}: its geometry differs from that of {first}: {difference}. Resample it to match.")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which `verify` reports
        array = np.concatenate(arrays, dtype=np.float32, casting="unsafe")
    return Image(np.ascontiguousarray(array), geometries[0])


def read_label(path: Path) -> tuple[npt.NDArray[np.integer[Any]], Geometry]:
    """Read a label map as integers of shape (Z, Y, X). Palette pictures give the palette's indices.

    Raises:
        UserError: As `read_image`; several values per voxel; values that are not integers.
    """
    path = Path(path)
    array, geometry = _read(path, is_label=True)
    if len(array) != 1:
        raise UserError(f"{path}: a colour image, but a label file holds one number per voxel. Convert it.")
    label = array[0]
    if label.dtype.kind == "f":
        whole = np.isfinite(label) & (np.abs(label) < 2**31) & (label == np.round(label))
        if not whole.all():
            value = label[~whole].flat[0]
            raise UserError(
                f"{path}: contains {value:g}, but label values are whole numbers. Recreate it without interpolation."
            )
        label = label.astype(np.int32)
    return np.array(label, label.dtype.newbyteorder("=")), geometry  # a writeable copy


def read_dicom_series(folder: Path) -> Image:
    """Read the one DICOM series in `folder` as an image of shape (1, Z, Y, X), or (3, Z, Y, X) in colour.

    Raises:
        UserError: No series or several, several slices at one position, uneven gaps, unreadable files.
    """
    return read_dicom_slices(folder, dicom.series_files(folder))


def read_dicom_slices(folder: Path, files: list[str]) -> Image:
    """Read slices, in the order of `dicom.stacked`, as an image of shape (1, Z, Y, X), or (3, Z, Y, X) in colour.

    Raises:
        UserError: The files, which are in `folder`, cannot be read as one volume.
    """
    first, reader = sitk.ImageFileReader(), sitk.ImageSeriesReader()
    first.SetFileName(files[0])
    reader.SetFileNames(files)
    try:
        first.ReadImageInformation()
        # Otherwise all slices get the type of the first one, which cannot hold the values of others if each is scaled
        # by a slope of its own, as in PET.
        is_colour = first.GetNumberOfComponents() > 1
        reader.SetOutputPixelType(sitk.sitkVectorFloat32 if is_colour else sitk.sitkFloat32)
        image = _read_single(Path(files[0])) if len(files) == 1 else reader.Execute()
    except RuntimeError as error:
        raise UserError(
            f"{folder}: cannot be read as one DICOM series ({reason(error)}). Copy it again or convert it."
        ) from error
    array, geometry = array_from_itk(folder, image, oriented=dicom.states_orientation(Path(files[0])))
    return Image(np.ascontiguousarray(array[:3], dtype=np.float32), geometry)


def _read_single(path: Path) -> sitk.Image:
    """Read a series that is one file, with one frame or several."""
    image, frames = sitk.ReadImage(str(path)), read_frames(path)
    return image if frames is None else frames.arrange(image)


def write_label(array: npt.NDArray[Any], geometry: Geometry, path: Path) -> None:
    """Write label values of shape (Z, Y, X) to `path`, as uint8 if they fit, else uint16.

    If `geometry` was read from a NIfTI, NRRD or MHA file and `path` has the same format, the geometry is preserved
    bit by bit. Other formats preserve it as far as they can (NIfTI: float32).

    Raises:
        UserError: Values below 0 or above 65535, or a format or directory that cannot hold them.
    """
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise UserError(f"{path}: label values from {low} to {high} cannot be written. Use values from 0 to 65535.")
    _write(array.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16), geometry, Path(path))


def write_array(array: npt.NDArray[Any], geometry: Geometry, path: Path) -> None:
    """Write a map, such as one of probabilities, of shape (Z, Y, X) to `path` as float32.

    Raises:
        UserError: A format (PNG, BMP) or directory that cannot hold it.
    """
    if file_ending(Path(path)) in (".png", ".bmp"):
        raise UserError(f"{path}: cannot hold fractions. Write .tif or .nii.gz instead.")
    _write(array.astype(np.float32), geometry, Path(path))


def write_image(array: npt.NDArray[Any], geometry: Geometry, path: Path) -> None:
    """Write one channel of an image, shape (Z, Y, X): as uint8, int16 or uint16 if that is exact, else float32.

    Raises:
        UserError: A format or directory that cannot hold it.
    """
    if np.isfinite(array).all() and (array == np.round(array)).all():
        for kind in (np.uint8, np.int16, np.uint16):
            if array.size and np.iinfo(kind).min <= array.min() and array.max() <= np.iinfo(kind).max:
                return _write(array.astype(kind), geometry, Path(path))
    return write_array(array, geometry, path)


@reading()
def _read(path: Path, *, is_label: bool = False) -> tuple[npt.NDArray[Any], Geometry]:
    """Read one file as (C, Z, Y, X), in the file's number type, without alpha."""
    ending = file_ending(path)
    name = library_path(path)
    if not path.is_file():
        if path.is_dir():
            raise UserError(f"{path}: a directory, not a file. Replace it with the image that should have this name.")
        raise UserError(f"{path}: not a regular file." if path.exists() else f"{path}: no such file.")
    if pictures.is_misread_by_itk(path, is_label=is_label):
        return pictures.read(path)
    if ending in (".nii.gz", ".nii"):
        return _read_nifti(path, is_label)
    header, oriented = None, True
    if ending == ".nrrd":
        headers.check_nrrd(path)
        header, oriented = headers.nrrd_header(path), headers.nrrd_states_orientation(path)
    elif ending == ".mha":
        headers.check_mha(path, is_label=is_label)
        oriented = headers.mha_states_orientation(path)
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(name)
        reader.ReadImageInformation()
        check_declared(path, _declared_bytes(reader), is_label=is_label)
        image = reader.Execute()
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}). Replace or convert it.") from error
    array, geometry = array_from_itk(path, image, header, oriented=oriented)
    return (array[:3] if len(array) == 4 and ending in PICTURES else array), geometry


def _declared_bytes(reader: sitk.ImageFileReader) -> int:
    """Return the size of the voxels of a file whose information was read; 8 bytes each at most."""
    bits = [int(digits) for digits in re.findall(r"\d+", sitk.GetPixelIDValueAsString(reader.GetPixelID()))]
    values = math.prod(int(n) for n in reader.GetSize()) * int(reader.GetNumberOfComponents())
    return values * (bits[0] if bits else 64) // 8


def _read_nifti(path: Path, is_label: bool) -> tuple[npt.NDArray[Any], Geometry]:
    voxels, header = nifti.read(path, is_label=is_label)
    reader = sitk.ImageFileReader()
    try:
        with nifti.readable_by_itk(path, header) as file:
            reader.SetFileName(str(file))
            reader.ReadImageInformation()
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}). Replace or convert it.") from error
    geometry = geometry_from_itk(path, reader, header, oriented=nifti.states_orientation(header))
    channels = np.moveaxis(voxels, -1, 0) if voxels.ndim == 2 else voxels[None]
    return channels.reshape(-1, *geometry.shape), geometry


def _write(array: npt.NDArray[Any], geometry: Geometry, path: Path) -> None:
    if array.shape != geometry.shape:
        raise ValueError(f"array of shape {array.shape} for a geometry of shape {geometry.shape}")
    voxels = array[0] if geometry.dims == 2 else array
    ending = file_ending(path)
    library_path(path)
    header = geometry.header or ""
    is_nifti = ending in (".nii.gz", ".nii")
    with written_whole(path) as temporary:
        if is_nifti and nifti.is_header(header):
            nifti.write(temporary, voxels, header)
        elif ending == ".nrrd" and headers.is_nrrd_header(header):
            headers.write_nrrd(temporary, voxels, header)
        else:
            write_itk(
                sitk.GetImageFromArray(voxels) if ending in PICTURES else to_itk(array, geometry), temporary, path
            )
            if is_nifti or ending == ".bmp":
                _check_complete(temporary, path)
    side = spacing_file(path)
    if side is not None and geometry.spacing != (1.0, 1.0, 1.0):
        write_json(side, {"spacing": list(geometry.spacing)})


def _check_complete(temporary: Path, path: Path) -> None:
    """Read a NIfTI or BMP file that ITK wrote: it does not notice a full disk and leaves a truncated file."""
    try:
        _read(temporary, is_label=True)
    except UserError as error:
        raise UserError(f"{path}: cannot be written completely. Check free space and permissions.") from error
