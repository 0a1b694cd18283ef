"""Where the channels and labels of a case come from: each source lists its files, reads them and rewrites them.

Files that already have the format of the dataset are copied byte by byte.
"""

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from autocrossdim.data import headers, nifti
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import file_ending, read_image, read_label, write_image, write_label
from autocrossdim.data.itk import image_from_itk
from autocrossdim.data.pictures import spacing_file
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import library_path, reading, write_json, written_whole
from autocrossdim.system.text import counted, listed

Array = npt.NDArray[Any]


class Source(Protocol):
    """One channel of a case, or its label."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that decides what is written."""

    def read(self) -> tuple[Array, Geometry]:
        """Return the channels (C, Z, Y, X), C is 1 for labels and for all but colour pictures, and their geometry.

        Raises:
            UserError: A file cannot be read, or holds values that the layout does not allow.
        """

    def write(self, path: Path) -> None:
        """Write the channel or label to `path`, completely or not at all."""


class ReadImage:
    """A channel whose values are written unchanged, as integers if all of them are integers."""

    def write(self: Source, path: Path) -> None:
        """Write the image in the format of `path`."""
        array, geometry = self.read()
        write_image(array[0], geometry, path)


class ReadLabel:
    """A label whose values are written unchanged."""

    def write(self: Source, path: Path) -> None:
        """Write the label values in the format of `path`."""
        array, geometry = self.read()
        write_label(array[0], geometry, path)


@dataclass(frozen=True)
class ImageFile:
    """An image in a format of raw datasets."""

    path: Path

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and the spacing file beside a TIFF."""
        return _with_spacing(self.path)

    def read(self) -> tuple[Array, Geometry]:
        """Return the image (C, Z, Y, X) and its geometry."""
        image = read_image([self.path])
        return image.array, image.geometry

    def write(self, path: Path) -> None:
        """Copy the file, compress it, or convert it to the format of `path`."""
        if not _copied(self.path, path):
            array, geometry = self.read()
            write_image(array[0], geometry, path)


@dataclass(frozen=True)
class LabelFile:
    """A label map in a format of raw datasets.

    Attributes:
        path: Label file.
        values: Value in the file -> value in the dataset, background left out; None keeps all values.
    """

    path: Path
    values: Mapping[int, int] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The file, and the spacing file beside a TIFF."""
        return _with_spacing(self.path)

    def read(self) -> tuple[Array, Geometry]:
        """Return the label values (1, Z, Y, X) of the dataset and their geometry."""
        array, geometry = read_label(self.path)
        return (array if self.values is None else mapped(self.path, array, self.values))[None], geometry

    def write(self, path: Path) -> None:
        """Copy the file if no value changes, else write the new values."""
        changes = self.values is not None and any(old != new for old, new in self.values.items())
        if changes or not _copied(self.path, path):
            array, geometry = self.read()
            write_label(array[0], geometry, path)


@dataclass(frozen=True)
class Volume:
    """One volume of a 4D NIfTI file."""

    path: Path
    number: int

    @property
    def files(self) -> tuple[Path, ...]:
        """The 4D file."""
        return (self.path,)

    def read(self) -> tuple[Array, Geometry]:
        """Return the volume (1, Z, Y, X) and its geometry."""
        with TemporaryDirectory() as folder:
            file = Path(folder) / "volume.nii"
            file.write_bytes(_volumes(self.path)[self.number])
            image = read_image([file])
        return image.array, image.geometry

    def write(self, path: Path) -> None:
        """Write the volume with the voxels and the geometry that it has in the 4D file, bit by bit."""
        _write_compressed(_volumes(self.path)[self.number], path)


@dataclass(frozen=True)
class MetaImage:
    """An image or a label map in a `.mhd` header with its voxels in a `.raw` file; a single slice becomes 2D."""

    path: Path
    is_label: bool = False

    @property
    def files(self) -> tuple[Path, ...]:
        """Header and voxels."""
        return (self.path, self.path.with_suffix(".raw"))

    def read(self) -> tuple[Array, Geometry]:
        """Return the image (1, Z, Y, X) and its geometry."""
        with reading():
            for file in self.files:
                if not file.is_file():
                    raise UserError(f"{file}: no such file. Copy header and voxels together.")
        declared, present = headers.mhd_bytes(self.path), self.files[1].stat().st_size
        if declared > present:
            raise UserError(
                f"{self.files[1]}: truncated: {self.path.name} declares {declared:,} bytes, the file has {present:,}. "
                "Copy the file again."
            )
        try:
            image = image_from_itk(sitk.ReadImage(library_path(self.path)))
        except RuntimeError as error:
            raise UserError(f"{self.path}: cannot be read ({str(error).splitlines()[-1]}). Replace it.") from error
        return image.array, without_depth(image.geometry)

    def write(self, path: Path) -> None:
        """Write the image in the format of `path`."""
        array, geometry = self.read()
        (write_label if self.is_label else write_image)(array[0], geometry, path)


def without_depth(geometry: Geometry) -> Geometry:
    """Return the geometry of a single axial slice as that of a 2D image; others as they are."""
    if geometry.dims == 2 or geometry.shape[0] > 1:
        return geometry
    return Geometry(
        shape=geometry.shape,
        spacing=(1.0, *geometry.spacing[1:]),
        origin=geometry.origin[:2],
        direction=(1.0, 0.0, 0.0, 1.0),
        dims=2,
        pixel_type=geometry.pixel_type,
    )


def mapped(path: Path, array: Array, values: Mapping[int, int]) -> npt.NDArray[np.uint16]:
    """Return label values of any shape as those of the dataset.

    Args:
        path: File of the values, for messages.
        array: Label values.
        values: Value in the file -> value in the dataset; 0 stays 0.

    Raises:
        UserError: A value is neither 0 nor in `values`.
    """
    known = {0: 0, **values}
    present, index = np.unique(array, return_inverse=True)
    if unknown := [int(value) for value in present if int(value) not in known]:
        raise UserError(
            f"{path}: contains the {'value' if len(unknown) == 1 else 'values'} {listed(unknown)}, but only "
            f"{listed(sorted(known), 20)} are expected here. Correct the file, or give the right layout or labels."
        )
    table = np.array([known[int(value)] for value in present], np.uint16)
    return table[index].reshape(array.shape)


def require_files(source: Source, case: str, what: str) -> list[str]:
    """Return a fault for each file of a source that does not exist."""
    with reading():
        return [
            f"{file}: no such file, but case '{case}' needs {what}. Add it, or remove the case."
            for file in source.files
            if not file.exists()
        ]


def _with_spacing(path: Path) -> tuple[Path, ...]:
    side = spacing_file(path)
    with reading():
        return (path,) if side is None or not side.is_file() else (path, side)


def _copied(source: Path, path: Path) -> bool:
    """Copy a file that has the format of `path`, compressing `.nii` for `.nii.gz`; return whether it has."""
    old, new = file_ending(source), file_ending(path)
    is_smaller = (old, new) == (".nii", ".nii.gz")
    if old != new and not is_smaller:
        return False
    with reading(source):  # before writing, so that a full disk is not taken for a source that cannot be read
        content = source.read_bytes()
    if is_smaller:
        _write_compressed(content, path)
        return True
    with written_whole(path) as temporary:
        temporary.write_bytes(content)
    side, target = spacing_file(source), spacing_file(path)
    if side is not None and target is not None and side.is_file():
        write_json(target, {"spacing": list(read_image([source]).geometry.spacing)})
    return True


def _write_compressed(content: bytes, path: Path) -> None:
    with written_whole(path) as temporary:
        temporary.write_bytes(gzip.compress(content, nifti.COMPRESSION, mtime=0))


@lru_cache(maxsize=1)
def _volumes(path: Path) -> list[bytes]:
    """Return the volumes of a 4D file, kept until another file is read: its channels are read one after the other."""
    return nifti.volumes(path)


def volume_sources(path: Path, channels: int) -> tuple[Source, ...]:
    """Return the channels of a NIfTI file: the volumes of a 4D file, or a 3D file itself.

    Raises:
        UserError: The file has another number of volumes.
    """
    found = nifti.count_volumes(path)
    if (found or 1) != channels:
        raise UserError(
            f"{path}: {counted(found or 1, 'volume')}, but {counted(channels, 'channel')} declared. Unpack the file "
            "again, or correct the list of channels."
        )
    return (ImageFile(path),) if found is None else tuple(Volume(path, number) for number in range(found))
