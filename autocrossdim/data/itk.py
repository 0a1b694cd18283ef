"""SimpleITK images: from and to arrays with their geometry."""

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from autocrossdim.data.geometry import Geometry, Image, three
from autocrossdim.data.pictures import is_picture, picture_geometry
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import by_axis

sitk.ProcessObject.SetGlobalWarningDisplay(False)
# Otherwise ITK refuses NIfTI files whose direction was rounded or sheared, which nnU-Net reads. Voxels and spacing are
# read as stored, and results are written with the header of their source.
os.environ.setdefault("ITK_NIFTI_SFORM_PERMISSIVE", "1")


def array_from_itk(
    path: Path, image: sitk.Image, header: str | None = None, *, oriented: bool = True
) -> tuple[npt.NDArray[Any], Geometry]:
    """Return an ITK image as (C, Z, Y, X), in its number type, and its geometry.

    Args:
        path: The file it was read from, for messages.
        image: The image; vector components become channels.
        header: Geometry in the format of the file, see `Geometry.header`.
        oriented: Whether the file states its orientation, see `Geometry.oriented`.

    Raises:
        UserError: As `geometry_from_itk`, or the voxels are complex numbers.
    """
    if "complex" in image.GetPixelIDTypeAsString():
        raise UserError(f"{path}: complex voxels. Write the magnitude, or magnitude and phase as two channels.")
    geometry = geometry_from_itk(path, image, header, oriented=oriented)
    array = sitk.GetArrayFromImage(image)
    channels = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array[None]
    return channels.reshape(-1, *geometry.shape), geometry


def image_from_itk(image: sitk.Image) -> Image:
    """Return a SimpleITK image as an array (C, Z, Y, X) with its geometry; vector components become channels.

    Raises:
        UserError: The image is 4D or complex, or its spacing, origin or direction is not valid.
    """
    array, geometry = array_from_itk(Path("SimpleITK image"), image)
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


def geometry_from_itk(
    path: Path, image: sitk.Image | sitk.ImageFileReader, header: str | None, *, oriented: bool = True
) -> Geometry:
    """Return the geometry of an ITK image, or of a reader that has read its information.

    Args:
        path: The file, for messages; pictures have their spacing in a file beside them.
        image: The image or reader.
        header: Geometry in the format of the file, see `Geometry.header`.
        oriented: Whether the file states its orientation, see `Geometry.oriented`; pictures never do.

    Raises:
        UserError: The image has more than three axes, or an invalid spacing, origin or direction.
    """
    dims = image.GetDimension()
    size = by_axis(image.GetSize())
    if dims > 3:
        raise UserError(f"{path}: a {dims}D image ({size}). Split it into one 3D file per channel or time point.")
    if dims < 2 or min(image.GetSize()) < 1:
        raise UserError(f"{path}: the header declares {size} voxels. Use an image with 2 or 3 axes.")
    shape = (1, *image.GetSize()[::-1])[-3:]
    pixel_type = sitk.GetPixelIDValueAsString(image.GetPixelID())
    if is_picture(path):
        return picture_geometry(path, shape, dims, pixel_type)
    spacing = image.GetSpacing()[::-1]
    if not all(np.isfinite(mm) and mm > 0 for mm in spacing):
        declared = by_axis(spacing)
        raise UserError(f"{path}: the header declares a spacing of {declared} mm (z, y, x). Fix the header.")
    if not np.isfinite([*image.GetOrigin(), *image.GetDirection()]).all():
        raise UserError(f"{path}: the origin or direction in the header is not a number. Fix the header.")
    return Geometry(
        shape=three(shape),
        spacing=three((1.0, *spacing)[-3:]),
        origin=image.GetOrigin(),
        direction=image.GetDirection(),
        dims=dims,
        pixel_type=pixel_type,
        header=header,
        oriented=oriented,
    )


def write_itk(image: sitk.Image, temporary: Path, path: Path) -> None:
    """Write an ITK image to the temporary file of `path`.

    Raises:
        UserError: ITK cannot write it.
    """
    try:
        sitk.WriteImage(image, str(temporary), useCompression=True)
    except RuntimeError as error:
        raise UserError(f"{path}: cannot be written ({reason(error)}). Check free space and permissions.") from error


def reason(error: Exception) -> str:
    """Return the last line of an ITK error, without addresses."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["no reason given"]
    return re.sub(r"^(sitk::ERROR|ITK ERROR): |\w+\(0x\w+\): ", "", re.sub(r"^ITK ERROR: ", "", lines[-1])).rstrip(".")
