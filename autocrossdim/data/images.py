"""Reading and writing images and labels: arrays (z, y, x) and their geometry."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from PIL import Image as Picture

from autocrossdim.data import dicom, headers, nifti
from autocrossdim.data.limits import check_declared
from autocrossdim.data.orientation import orientation_code
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import library_path, read_json, reading, write_json, written_whole
from autocrossdim.system.text import shown_path

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".bmp", ".tif", ".tiff")
TIFFS = (".tif", ".tiff")
PICTURES = (".png", ".bmp", *TIFFS)  # their resolution is meant for printing: the spacing is 1, as in nnU-Net

# Largest difference in geometry between channels, and between image and label, as a share of a voxel (absolute for
# the direction matrix). Headers written as float32, or through a quaternion, differ by 1e-5 for the same geometry.
TOLERANCE = 1e-3

sitk.ProcessObject.SetGlobalWarningDisplay(False)
# Otherwise ITK refuses NIfTI files whose direction was rounded or sheared, which nnU-Net reads. Voxels and spacing are
# read as stored, and results are written with the header of their source.
os.environ.setdefault("ITK_NIFTI_SFORM_PERMISSIVE", "1")


@dataclass(frozen=True)
class Geometry:
    """Position of an image's voxels in space.

    Attributes:
        shape: voxels (Z, Y, X); Z is 1 for a 2D image.
        spacing: mm (z, y, x); z is 1.0 for a 2D image.
        origin: ITK's origin in mm, unchanged, `dims` entries (x, y, z).
        direction: ITK's direction matrix, unchanged, row by row, `dims` squared entries.
        dims: 2 or 3.
        pixel_type: voxel type of the file, for display.
        oriented: whether the file states how its axes lie in the patient; pictures and NIfTI files without a coordinate
            system do not.
        header: geometry in the source's format, `nifti:<base64>` or `nrrd:<lines>`. Files of the same format are
            written with it, which preserves the geometry bit by bit.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, ...]
    direction: tuple[float, ...]
    dims: int
    pixel_type: str | None = field(default=None, compare=False)
    header: str | None = field(default=None, compare=False, repr=False)
    oriented: bool = field(default=True, compare=False)

    @property
    def orientation(self) -> str | None:
        """Orientation code of the array, see `autocrossdim.data.orientation`; None if it is unknown or 2D."""
        return orientation_code(self.direction) if self.dims == 3 and self.oriented else None

    def to_json(self) -> dict[str, Any]:
        """Return a dictionary that JSON preserves exactly."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Geometry":
        """Return the geometry that `to_json` described."""
        tuples: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
        return cls(**tuples)


@dataclass
class Image:
    """An image: `array` of shape (C, Z, Y, X), float32, and its geometry."""

    array: npt.NDArray[np.float32]
    geometry: Geometry


def same_place(a: Geometry, b: Geometry) -> str | None:
    """Describe how two geometries differ in shape, spacing, origin or direction; None if they agree.

    The tolerance is `TOLERANCE`: relative to the spacing for spacing and origin, absolute for the direction matrix.
    """
    if a.dims != b.dims:
        return f"{a.dims}D and {b.dims}D"
    if a.shape != b.shape:
        return f"shape {_text(a.shape)} and {_text(b.shape)} voxels (z, y, x)"
    spacing = np.array(a.spacing)
    if np.any(np.abs(spacing - b.spacing) > TOLERANCE * spacing):
        return f"spacing {_text(a.spacing)} and {_text(b.spacing)} mm (z, y, x)"
    if np.any(np.abs(np.subtract(a.origin, b.origin)) > TOLERANCE * spacing.min()):
        return f"origin {_text(a.origin)} and {_text(b.origin)} mm (x, y, z)"
    if np.any(np.abs(np.subtract(a.direction, b.direction)) > TOLERANCE):
        return f"direction {_text(a.direction)} and {_text(b.direction)}"
    return None


def file_ending(path: Path) -> str:
    """Return the ending of an image file, such as `.nii.gz`.

    Raises:
        UserError: a format that is not supported.
    """
    for ending in ENDINGS:
        if path.name.lower().endswith(ending):
            return ending
    raise UserError(f"{shown_path(path)}: not a supported format. Convert it to one of {', '.join(ENDINGS)}.")


def read_image(paths: Sequence[Path]) -> Image:
    """Read one image: one file per channel, one RGB(A) file with three channels, or the directory of a DICOM series.

    Raises:
        UserError: a file is missing, unreadable, truncated, 4D or complex, has no valid spacing or far more voxels
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
            raise UserError(f"{path}: another geometry than {Path(paths[0]).name}: {difference}. Resample it to match.")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, which `verify` reports
        array = np.concatenate(arrays, dtype=np.float32, casting="unsafe")
    return Image(np.ascontiguousarray(array), geometries[0])


def read_label(path: Path) -> tuple[npt.NDArray[np.integer[Any]], Geometry]:
    """Read a label map as integers of shape (Z, Y, X). Palette pictures give the palette's indices.

    Raises:
        UserError: as `read_image`; several values per voxel; values that are not integers.
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
        UserError: no series or several, several slices at one position, uneven gaps, unreadable files.
    """
    return read_dicom_slices(folder, dicom.series_files(folder))


def read_dicom_slices(folder: Path, files: list[str]) -> Image:
    """Read slices, in the order of `dicom.stacked`, as an image of shape (1, Z, Y, X), or (3, Z, Y, X) in colour.

    Raises:
        UserError: the files, which are in `folder`, cannot be read as one volume.
    """
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    try:
        image = sitk.ReadImage(files[0]) if len(files) == 1 else reader.Execute()
    except RuntimeError as error:
        raise UserError(
            f"{folder}: cannot be read as one DICOM series ({_reason(error)}). Copy it again or convert it."
        ) from error
    array, geometry = _from_itk(folder, image)
    return Image(np.ascontiguousarray(array[:3], dtype=np.float32), geometry)


def write_label(array: npt.NDArray[Any], geometry: Geometry, path: Path) -> None:
    """Write label values of shape (Z, Y, X) to `path`, as uint8 if they fit, else uint16.

    If `geometry` was read from a NIfTI, NRRD or MHA file and `path` has the same format, the geometry is preserved
    bit by bit. Other formats preserve it as far as they can (NIfTI: float32).

    Raises:
        UserError: values below 0 or above 65535, or a format or directory that cannot hold them.
    """
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < 0 or high > np.iinfo(np.uint16).max:
        raise UserError(f"{path}: label values from {low} to {high} cannot be written. Use values from 0 to 65535.")
    _write(array.astype(np.uint8 if high <= np.iinfo(np.uint8).max else np.uint16), geometry, Path(path))


def write_array(array: npt.NDArray[Any], geometry: Geometry, path: Path) -> None:
    """Write a map, such as one of probabilities, of shape (Z, Y, X) to `path` as float32.

    Raises:
        UserError: a format (PNG, BMP) or directory that cannot hold it.
    """
    if file_ending(Path(path)) in (".png", ".bmp"):
        raise UserError(f"{path}: cannot hold fractions. Write .tif or .nii.gz instead.")
    _write(array.astype(np.float32), geometry, Path(path))


def write_image(array: npt.NDArray[Any], geometry: Geometry, path: Path) -> None:
    """Write one channel of an image, shape (Z, Y, X): as uint8, int16 or uint16 if that is exact, else float32.

    Raises:
        UserError: a format or directory that cannot hold it.
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
            raise UserError(f"{path}: a directory, not a file. Replace it by the image that should have this name.")
        raise UserError(f"{path}: not a regular file." if path.exists() else f"{path}: no such file.")
    # Pillow keeps palette indices and 1-bit values, which ITK turns into colours. ITK also reads grey BMP as colour,
    # does not notice truncated BMP files, and fails on grey PNG with alpha.
    if (is_label and ending in PICTURES) or ending == ".bmp" or (ending == ".png" and _is_grey_with_alpha(path)):
        return _read_picture(path)
    if ending in (".nii.gz", ".nii"):
        return _read_nifti(path, is_label)
    header = None
    if ending == ".nrrd":
        headers.check_nrrd(path)
        header = headers.nrrd_header(path)
    elif ending == ".mha":
        headers.check_mha(path, is_label=is_label)
    elif ending in TIFFS:
        headers.check_tiff(path)
    try:
        reader = sitk.ImageFileReader()
        reader.SetFileName(name)
        reader.ReadImageInformation()
        check_declared(path, _declared_bytes(reader), is_label=is_label)
        image = reader.Execute()
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be read ({_reason(error)}). Replace or convert it.") from error
    array, geometry = _from_itk(path, image, header)
    return (array[:3] if len(array) == 4 and ending in PICTURES else array), geometry


def _is_grey_with_alpha(path: Path) -> bool:
    """Whether a PNG file's header declares colour type 4."""
    with path.open("rb") as file:
        return file.read(26)[25:] == b"\x04"


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
        raise UserError(f"{path}: cannot be read ({_reason(error)}). Replace or convert it.") from error
    geometry = _geometry(path, reader, header)
    channels = np.moveaxis(voxels, -1, 0) if voxels.ndim == 2 else voxels[None]
    return channels.reshape(-1, *geometry.shape), geometry


def _from_itk(path: Path, image: sitk.Image, header: str | None = None) -> tuple[npt.NDArray[Any], Geometry]:
    """Return an ITK image as (C, Z, Y, X) and its geometry; `path` is for messages."""
    if "complex" in image.GetPixelIDTypeAsString():
        raise UserError(f"{path}: complex voxels. Write the magnitude, or magnitude and phase as two channels.")
    geometry = _geometry(path, image, header)
    array = sitk.GetArrayFromImage(image)
    channels = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    return channels.reshape(-1, *geometry.shape), geometry


def image_from_itk(image: sitk.Image) -> Image:
    """Return a SimpleITK image as an array (C, Z, Y, X) with its geometry; vector components become channels.

    Raises:
        UserError: The image is 4D or complex, or its spacing, origin or direction is not valid.
    """
    array, geometry = _from_itk(Path("SimpleITK image"), image)
    with np.errstate(over="ignore"):  # as in `read_image`
        return Image(np.ascontiguousarray(array, dtype=np.float32), geometry)


def to_itk(array: npt.NDArray[Any], geometry: Geometry) -> sitk.Image:
    """Return an array (Z, Y, X) as a SimpleITK image with the geometry; 2D if the geometry is.

    Raises:
        ValueError: The array has another shape than the geometry.
    """
    if array.shape != geometry.shape:
        raise ValueError(f"array of shape {array.shape} for a geometry of shape {geometry.shape}")
    image = sitk.GetImageFromArray(array[0] if geometry.dims == 2 else array)
    image.SetSpacing(geometry.spacing[::-1][: geometry.dims])
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction)
    return image


def _geometry(path: Path, image: sitk.Image | sitk.ImageFileReader, header: str | None) -> Geometry:
    """Return the geometry of an ITK image, or of a reader that has read its information."""
    dims = image.GetDimension()
    if dims > 3:
        size = " × ".join(str(n) for n in image.GetSize())
        raise UserError(f"{path}: a {dims}D image ({size}). Split it into one 3D file per channel or time point.")
    if dims < 2 or min(image.GetSize()) < 1:
        raise UserError(f"{path}: the header declares {_text(image.GetSize())} voxels. Use an image with 2 or 3 axes.")
    shape = (1, *image.GetSize()[::-1])[-3:]
    pixel_type = sitk.GetPixelIDValueAsString(image.GetPixelID())
    if is_picture(path):
        return _picture_geometry(path, shape, dims, pixel_type)
    spacing = image.GetSpacing()[::-1]
    if not all(np.isfinite(s) and s > 0 for s in spacing):
        raise UserError(f"{path}: the header declares a spacing of {_text(spacing)} mm (z, y, x). Fix the header.")
    if not np.isfinite([*image.GetOrigin(), *image.GetDirection()]).all():
        raise UserError(f"{path}: the origin or direction in the header is not a number. Fix the header.")
    return Geometry(
        shape=_three(shape),
        spacing=_three((1.0, *spacing)[-3:]),
        origin=image.GetOrigin(),
        direction=image.GetDirection(),
        dims=dims,
        pixel_type=pixel_type,
        header=header,
        oriented=header is None or nifti.states_orientation(header),
    )


def is_picture(path: Path) -> bool:
    """Whether `path` has a format without a reliable spacing (PNG, BMP, TIFF)."""
    return path.name.lower().endswith(PICTURES)


def _read_picture(path: Path) -> tuple[npt.NDArray[Any], Geometry]:
    """Read a picture with Pillow."""
    if file_ending(path) in TIFFS:
        headers.check_tiff(path)
    try:
        with Picture.open(path) as picture:
            pages = []
            for page in range(getattr(picture, "n_frames", 1)):
                picture.seek(page)
                pages.append(np.array(picture))
            pixel_type = f"{picture.format} {picture.mode}"
        array = np.stack(pages)
    except Exception as error:  # damaged files raise exceptions of every kind
        raise UserError(f"{path}: cannot be read ({error}). Replace or convert it.") from error
    if array.dtype == bool:
        array = array.astype(np.uint8)
    channels = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    channels = channels[: {2: 1, 4: 3}.get(len(channels))]  # without alpha
    dims = 2 if len(pages) == 1 else 3
    return channels, _picture_geometry(path, channels.shape[1:], dims, pixel_type)


def _picture_geometry(path: Path, shape: tuple[int, ...], dims: int, pixel_type: str) -> Geometry:
    """Return the geometry of a picture, with the spacing of its spacing file or 1."""
    spacing: list[float] = [1.0, 1.0, 1.0]
    side = spacing_file(path)
    if side is not None and side.is_file():
        content = read_json(side)
        given: Any = content.get("spacing") if isinstance(content, dict) else None
        numbers = isinstance(given, list) and all(isinstance(s, int | float) for s in given)
        spacing = [1.0] * (3 - len(given)) + [float(s) for s in given] if numbers else []
        if len(spacing) != 3 or not all(np.isfinite(s) and s > 0 for s in spacing):
            raise UserError(f'{side}: not a valid spacing. Write {{"spacing": [z, y, x]}}, in mm, all above 0.')
    return Geometry(
        shape=_three(shape),
        spacing=_three(spacing),
        origin=(0.0,) * dims,
        direction=tuple(float(x) for x in np.eye(dims).ravel()),
        dims=dims,
        pixel_type=pixel_type,
        oriented=False,
    )


def spacing_file(path: Path) -> Path | None:
    """Return the path of nnU-Net's CASE.json beside CASE_0000.tif or CASE.tif; None for other formats."""
    if not path.name.lower().endswith(TIFFS):
        return None
    return path.with_name(re.sub(r"_\d{4}$", "", path.stem) + ".json")


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


def write_itk(image: sitk.Image, temporary: Path, path: Path) -> None:
    """Write an ITK image to the temporary file of `path`.

    Raises:
        UserError: ITK cannot write it.
    """
    try:
        sitk.WriteImage(image, str(temporary), useCompression=True)
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be written ({_reason(error)}). Check free space and permissions.") from error


def _check_complete(temporary: Path, path: Path) -> None:
    """Read a NIfTI or BMP file that ITK wrote: it does not notice a full disk and leaves a truncated file."""
    try:
        _read(temporary, is_label=True)
    except UserError as error:
        raise UserError(f"{path}: cannot be written completely. Check free space and permissions.") from error


def _reason(error: Exception) -> str:
    """Return the last line of an ITK error, without addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    return re.sub(r"^(sitk::ERROR|ITK ERROR): |\w+\(0x\w+\): ", "", re.sub(r"^ITK ERROR: ", "", lines[-1])).rstrip(".")


def _three(values: Sequence[Any]) -> tuple[Any, Any, Any]:
    z, y, x = values
    return z, y, x


def _text(values: Sequence[float]) -> str:
    return " × ".join(f"{value:.6g}" for value in values)
