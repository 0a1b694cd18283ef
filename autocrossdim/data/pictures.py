"""PNG, BMP and TIFF files: what ITK does not read as stored, and the spacing, which comes from a file beside them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, TiffImagePlugin
from PIL import Image as Picture

from autocrossdim.data import headers
from autocrossdim.data.geometry import Geometry, three
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json

TIFFS = (".tif", ".tiff")
PICTURES = (".png", ".bmp", *TIFFS)  # their resolution is meant for printing: the spacing is 1, as in nnU-Net

_BIG_TIFF, _FLOAT = 43, 3  # version and sample format of a TIFF file
_BIG_ENDIAN_BIG_TIFF = b"MM\0\x2b"


def is_picture(path: Path) -> bool:
    """Whether `path` has a format without a reliable spacing (PNG, BMP, TIFF)."""
    return path.name.lower().endswith(PICTURES)


def is_misread_by_itk(path: Path, *, is_label: bool) -> bool:
    """Return whether ITK would misread a file.

    It turns palette indices and 1-bit values into colours, reads grey BMP as colour, does not notice truncated BMP
    files, and fails on grey PNG with alpha. For TIFF files, see `_is_tiff_misread`.

    Raises:
        UserError: A TIFF file is damaged or truncated, or viewers would rotate or mirror it.
    """
    ending = path.suffix.lower()
    if ending in TIFFS and _is_tiff_misread(path):
        return True
    if is_label and is_picture(path):
        return True
    return ending == ".bmp" or (ending == ".png" and _is_grey_with_alpha(path))


def _is_tiff_misread(path: Path) -> bool:
    """Return whether ITK would misread a TIFF file, judged by its first page.

    It turns tiles and values of fewer than 8 bits into colours of 8 bits, half-precision numbers into whole ones, and
    multiplies grey values by their alpha.

    Raises:
        UserError: The file is damaged or truncated; viewers would rotate or mirror it; or it has tiles of colours that
            Pillow would reduce to 8 bits.
    """
    headers.check_tiff(path)
    try:
        with path.open("rb") as file:
            start = file.read(16)
            if start[:4] == _BIG_ENDIAN_BIG_TIFF:
                raise ValueError("BigTIFF in big-endian order, which is not supported")
            is_big = start[2] == _BIG_TIFF
            tags = TiffImagePlugin.ImageFileDirectory_v2(start if is_big else start[:8])
            file.seek(tags.next)
            tags.load(file)
        bits, kind = tags.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0], tags.get(TiffImagePlugin.SAMPLEFORMAT, (1,))[0]
        samples, turned = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, 1), tags.get(ExifTags.Base.Orientation, 1)
    except Exception as error:  # as in `read`
        raise UserError(f"{path}: cannot be read ({error}). Replace or convert it.") from error
    is_tiled = TiffImagePlugin.TILEOFFSETS in tags
    if turned not in (0, 1):
        raise UserError(
            f"{path}: viewers rotate or mirror it because of its orientation tag ({turned}), so its pixels may not "
            "match those of other files. Apply the rotation and save it without the tag."
        )
    if is_tiled and samples > 2 and bits > 8:
        raise UserError(f"{path}: tiles of colours with {bits} bits are not supported. Save it without tiles.")
    return bool(is_tiled or samples == 2 or bits < 8 or (bits == 16 and kind == _FLOAT))


def _is_grey_with_alpha(path: Path) -> bool:
    """Whether a PNG file's header declares colour type 4."""
    with path.open("rb") as file:
        return file.read(26)[25:] == b"\x04"


def read(path: Path) -> tuple[npt.NDArray[Any], Geometry]:
    """Read a picture with Pillow as (C, Z, Y, X), in its number type, without alpha; palettes give their indices.

    Raises:
        UserError: The file is damaged or truncated.
    """
    try:
        with Picture.open(path) as picture:
            pages = []
            for page in range(getattr(picture, "n_frames", 1)):
                picture.seek(page)
                pages.append(_as_stored(picture))
            pixel_type = f"{picture.format} {picture.mode}"
        array = np.stack(pages)
    except Exception as error:  # damaged files raise exceptions of every kind
        raise UserError(f"{path}: cannot be read ({error}). Replace or convert it.") from error
    if array.dtype == bool:
        array = array.astype(np.uint8)
    channels = np.moveaxis(array, -1, 0) if array.ndim == 4 else array[None]
    channels = channels[: {2: 1, 4: 3}.get(len(channels))]  # without alpha
    dims = 2 if len(pages) == 1 else 3
    return channels, picture_geometry(path, channels.shape[1:], dims, pixel_type)


def _as_stored(picture: Picture.Image) -> npt.NDArray[Any]:
    """Return the values of a page.

    Pillow inverts those of TIFF files in which 0 is white, such as ImageJ's masks, and stretches 2 or 4 bits to 8.
    """
    array = np.array(picture)
    if not isinstance(picture, TiffImagePlugin.TiffImageFile) or array.dtype not in (np.bool_, np.uint8):
        return array
    if picture.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
        array = np.invert(array)
    bits = picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))[0]
    return array // (255 // (2**bits - 1)) if picture.mode == "L" and bits < 8 else array


def picture_geometry(path: Path, shape: tuple[int, ...], dims: int, pixel_type: str) -> Geometry:
    """Return the geometry of a picture, with the spacing of its spacing file or 1.

    Raises:
        UserError: The spacing file is malformed.
    """
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
        shape=three(shape),
        spacing=three(spacing),
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
