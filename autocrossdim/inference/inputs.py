"""The images to segment: files found on disk, or one image given in Python."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from autocrossdim.data.dataset import Case, cases_in_folder
from autocrossdim.data.geometry import Geometry, Image, same_place
from autocrossdim.data.images import ENDINGS, file_ending, read_image
from autocrossdim.data.itk import image_from_itk
from autocrossdim.data.orientation import Reorientation
from autocrossdim.data.pictures import PICTURES
from autocrossdim.records.plan import Configuration, Plan
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import make_directory, reading
from autocrossdim.system.text import shown_path

FAR = 2.0  # ratio of spacings from which on to warn; standard augmentation scales by 0.7 to 1.4

File = str | os.PathLike[str]
ImageSource: TypeAlias = File | sitk.Image | Sequence[File | None] | Sequence[sitk.Image | None] | npt.NDArray[Any]
"""One image: a file or DICOM directory, a SimpleITK image, either of them per channel, or an array (C, Z, Y, X).

Missing channels are None.
"""
Spacing: TypeAlias = Sequence[float] | npt.NDArray[Any]


@reading()
def check_paths(source: Path, output: Path) -> None:
    """Fail before a model is loaded if there is nothing to read or no place to write.

    Args:
        source: What `find_inputs` is given.
        output: Directory for the segmentations; it is created.

    Raises:
        UserError: The source does not exist, or the output is the source, has the name of a file, or cannot be written
            to.
    """
    if not source.exists():
        raise UserError(f"-i {shown_path(source)}: no such file or directory. Check the path.")
    if source.is_dir() and os.path.realpath(source) == os.path.realpath(output):
        raise UserError(
            f"-o {shown_path(output)}: this is the directory of the images, where segmentations would be taken for "
            "images later. Choose another directory."
        )
    make_output(output)


@reading()
def make_output(output: Path) -> None:
    """Create the directory for the segmentations.

    Raises:
        UserError: It has the name of a file, or cannot be written to.
    """
    if not output.exists() and output.name.lower().endswith((*ENDINGS, ".dcm")):
        raise UserError(
            f"-o {shown_path(output)}: this is a file name, but segmentations are written to a directory, one file per "
            "case. Give the name of a directory."
        )
    make_directory(output)


@reading()
def find_inputs(source: Path, channels: int, ending: str, *, incomplete: bool = False) -> list[Case]:
    """Return the cases to segment.

    Args:
        source: Directory with images, the first file of a case, or the directory of one or several DICOM series.
        channels: Number of channels of the model.
        ending: File ending of the images on which the model was trained.
        incomplete: Accept cases without some of the channels, whose files do not exist.

    Raises:
        UserError: There are no images, or a channel is missing.
    """
    if not source.exists():
        raise UserError(f"{shown_path(source)}: no such file or directory. Check the path.")
    if source.is_dir():
        return cases_in_folder(source, channels, ending, incomplete=incomplete)
    ending = file_ending(source)
    stem = source.name[: -len(ending)]
    if channels > 1 and (match := re.fullmatch(r"(.+)_(\d{4})", stem)):
        files = tuple(source.with_name(f"{match[1]}_{channel:04d}{ending}") for channel in range(channels))
        alone = not any(file.exists() for file in files[1:])
        is_colour = alone and channels == 3 and ending in PICTURES
        if (match[2] == "0000" and files[1].exists()) or (incomplete and source in files and not is_colour):
            return [Case(match[1], files, None)]
    return [Case(stem.removesuffix("_0000"), (source,), None)]


def read_source(source: ImageSource, *, spacing: Spacing | None, channels: int, ending: str) -> Image:
    """Return one image as an array with its geometry.

    Args:
        source: A file, one file per channel, or the directory of a DICOM series; a SimpleITK image, whose components
            are channels if it is a vector image, or one per channel; or an array of shape (C, Z, Y, X).
        spacing: Voxel spacing in mm (z, y, x) of an array; None for the others, which know theirs.
        channels: Number of channels of the model.
        ending: File ending of the images on which the model was trained.

    Raises:
        UserError: The image cannot be read or is of another type, SimpleITK images of the channels differ in geometry,
            or an array has another number of axes or no valid spacing.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, spacing)
    _check_type(source)
    if spacing is not None:
        raise UserError("spacing= applies to arrays only; files and SimpleITK images have their own. Omit it.")
    if isinstance(source, sitk.Image):
        return image_from_itk(source)
    if not isinstance(source, str | os.PathLike):
        given = [channel for channel in source if channel is not None]
        if not given:
            raise UserError("No file was given. Give one file per channel.")
        images = [channel for channel in given if isinstance(channel, sitk.Image)]
        return _stacked(images) if images else read_image([Path(file) for file in given])
    cases = find_inputs(Path(source), channels, ending)
    if len(cases) > 1:
        raise UserError(
            f"{source}: contains {len(cases)} cases, but one image is needed. Give the files of one case, or segment "
            "the directory with `autocrossdim.predict`."
        )
    return read_image(cases[0].images)


def _check_type(source: Any) -> None:
    """Refuse objects that are no `ImageSource`, such as tensors, whose axes may have another order."""
    several = isinstance(source, Sequence) and not isinstance(source, str)
    channels = [channel for channel in source if channel is not None] if several else [source]
    for channel in channels:
        if not isinstance(channel, str | os.PathLike | sitk.Image):
            raise UserError(
                f"An image of type {type(channel).__name__} was given. Give paths, SimpleITK images, or one NumPy "
                "array of shape (C, Z, Y, X) with spacing=(z, y, x) in mm."
            )
    if len({isinstance(channel, sitk.Image) for channel in channels}) > 1:
        raise UserError("Give either paths or SimpleITK images for all channels, not both.")


def _stacked(images: Sequence[sitk.Image]) -> Image:
    """Return the SimpleITK images of the channels as one image."""
    channels = [image_from_itk(image) for image in images]
    for number, channel in enumerate(channels):
        if difference := same_place(channels[0].geometry, channel.geometry):
            raise UserError(
                f"SimpleITK image {number + 1}: its geometry differs from that of image 1: {difference}. Resample it "
                "to match."
            )
    return Image(np.concatenate([channel.array for channel in channels]), channels[0].geometry)


def name_of(source: ImageSource) -> str | None:
    """Return what messages call an image: its first file or directory; None for an image in memory."""
    if isinstance(source, np.ndarray | sitk.Image):
        return None
    channels = [source] if isinstance(source, str | os.PathLike) else source
    first = next((channel for channel in channels if channel is not None), None)
    return None if isinstance(first, sitk.Image) else str(first)


def channel_numbers(source: ImageSource) -> list[int] | None:
    """Return the numbers of the channels that an image has; None if none of its files is marked as missing."""
    if not isinstance(source, list | tuple) or all(source):
        return None
    return [number for number, file in enumerate(source) if file]


def check_image(array: npt.NDArray[Any], source: ImageSource, channels: Sequence[str], *, incomplete: bool) -> None:
    """Check that a model can be applied to an image.

    Args:
        array: The image as read, shape (C, Z, Y, X).
        source: Where it was read from; None in place of a file marks a missing channel.
        channels: Names of the channels of the model.
        incomplete: Whether the model accepts images that lack some of the channels.

    Raises:
        UserError: A channel is missing or superfluous, or a voxel is NaN or infinite.
    """
    present = channel_numbers(source)
    if present is not None:
        if not incomplete:
            raise UserError(
                "A channel is missing. Only models trained with --set channel_dropout=... segment such cases."
            )
        if not isinstance(source, list | tuple) or len(source) != len(channels) or len(array) != len(present):
            raise UserError(
                f"Give one file or image, or None, for each of {len(channels)} channels: {', '.join(channels)}."
            )
    elif len(array) != len(channels):
        raise UserError(
            f"An image of shape {array.shape} was given; the model needs (C, Z, Y, X) with {len(channels)} "
            f"channel(s): {', '.join(channels)}."
        )
    # For NaN, the network would predict background everywhere.
    broken = array.size - int(np.isfinite(array).sum())
    if broken:
        raise UserError(f"{broken} of {array.size} voxels are NaN or infinite. Replace them, for example by 0.")


def existing_files(case: Case) -> tuple[Path | None, ...]:
    """Return the files of a case, with None for each that does not exist."""
    with reading():
        return tuple(file if file.exists() else None for file in case.images)


def _from_array(array: npt.NDArray[Any], spacing: Spacing | None) -> Image:
    if array.ndim != 4 or not array.size or array.dtype.kind not in "biuf":
        raise UserError(
            f"An array of shape {array.shape} and type {array.dtype} was given; the model needs real numbers of "
            "shape (C, Z, Y, X). C is 1 for a single channel, and Z is 1 for a 2D image."
        )
    if spacing is None:
        raise UserError("An array has no voxel spacing. Add spacing=(z, y, x) in mm.")
    if np.ndim(spacing) != 1 or len(spacing) != 3 or not all(np.isfinite(mm) and mm > 0 for mm in spacing):
        raise UserError(f"spacing={spacing}: give three positive numbers (z, y, x) in mm.")
    _, z, y, x = array.shape
    geometry = Geometry(
        shape=(z, y, x),
        spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        origin=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        dims=3,
        oriented=False,
    )
    return Image(array, geometry)


def geometry_warnings(
    source: ImageSource, geometry: Geometry, plan: Plan, configurations: Sequence[Configuration]
) -> tuple[str, ...]:
    """Return warnings about orientation and spacing, each with the name of the image.

    Arrays cause none about their orientation, which they cannot state.

    Args:
        source: Where the image was read from.
        geometry: Its geometry as read.
        plan: Plan of the dataset.
        configurations: Configurations that are used.
    """
    orientation = None if isinstance(source, np.ndarray) else unclear_orientation(geometry, plan)
    found = [*([orientation] if orientation else []), *far_from_training(geometry, plan, configurations)]
    return tuple(f"{name_of(source) or 'Image'}: {each}" for each in found)


def unclear_orientation(geometry: Geometry, plan: Plan) -> str | None:
    """Return a warning if it is unclear how the axes of a volume relate to those of the training data, else None.

    Args:
        geometry: Geometry of the image as read.
        plan: Plan of the dataset. If it was made with `keep_orientation`, axes are used as stored on request.
    """
    if geometry.dims == 2 or plan.overrides.get("keep_orientation"):
        return None
    if plan.orientation is not None and geometry.orientation is None:
        return (
            "the file does not state its orientation, so it is taken to be that of the training data "
            f"({plan.orientation}; z, y, x). If its axes have another order or direction, the segmentation is wrong; "
            "fix the header."
        )
    if plan.orientation is None and geometry.orientation is not None:
        return (
            f"the orientation is {geometry.orientation} (z, y, x), but the training images did not state theirs, so "
            "the axes are used as stored. If those of the training images have another order or direction, the "
            "segmentation is wrong; store the image as the training images are stored."
        )
    return None


def far_from_training(geometry: Geometry, plan: Plan, configurations: Sequence[Configuration]) -> list[str]:
    """Return a warning for each axis along which the spacing differs from training by more than a factor of `FAR`.

    Args:
        geometry: Geometry of the image as read.
        plan: Plan of the dataset, which has the orientation and the axis order.
        configurations: Configurations that are used. Their training images are taken to have the finest spacing of
            all configurations with as many dimensions. In 2D, the spacing across slices is not compared.
    """
    warnings = []
    spacing = geometry.spacing
    change = Reorientation.between(geometry.orientation, plan.orientation).then_transposed(plan.transpose)
    for configuration in configurations:
        axes = change.order[-configuration.dims :]
        alike = [each.spacing for each in plan.configurations.values() if each.dims == configuration.dims]
        for axis, trained in zip(axes, map(min, zip(configuration.spacing, *alike, strict=True)), strict=True):
            factor = max(spacing[axis] / trained, trained / spacing[axis])
            if factor > FAR:
                finer_or_coarser = "finer" if trained < spacing[axis] else "coarser"
                warnings.append(
                    f"spacing {spacing[axis]:g} mm along {'zyx'[axis]}, but {configuration.name} was trained at "
                    f"{trained:g} mm, {factor:.1f} times {finer_or_coarser}. Check the result."
                )
    return warnings
