import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image as Picture

from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import read_image, read_label, write_label
from autocrossdim.system.errors import UserError

Writer = Callable[..., Path]
RAMP = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.uint16)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_colours_become_three_channels_and_alpha_is_ignored(tmp_path: Path, mode: str, ending: str):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, len(mode)), dtype=np.uint8)
    Picture.fromarray(pixels, mode).save(tmp_path / f"x{ending}")
    image = read_image([tmp_path / f"x{ending}"])
    np.testing.assert_array_equal(image.array, np.moveaxis(pixels[..., :3], -1, 0)[:, None])
    assert image.geometry.dims == 2


@pytest.mark.parametrize("ending", [".png", ".tif", ".bmp"])
def test_a_grey_picture_has_one_channel_and_spacing_one(tmp_path: Path, ending: str):
    pixels = np.arange(30, dtype=np.uint8).reshape(5, 6)
    Picture.fromarray(pixels).save(tmp_path / f"x{ending}", dpi=(72, 72))  # a resolution for printers
    image = read_image([tmp_path / f"x{ending}"])
    np.testing.assert_array_equal(image.array, pixels[None, None])
    assert image.geometry.spacing == (1.0, 1.0, 1.0)
    assert image.geometry.shape == (1, 5, 6)


def test_a_grey_picture_may_have_alpha_too(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 2), dtype=np.uint8)
    Picture.fromarray(pixels, "LA").save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_image([tmp_path / "x.png"]).array, pixels[None, None, ..., 0])


def test_a_palette_picture_gives_its_indices_and_a_1_bit_one_0_and_1(tmp_path: Path):
    indices = np.resize([0, 1, 2], (5, 6)).astype(np.uint8)
    picture = Picture.fromarray(indices, "P")
    picture.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_label(tmp_path / "x.png")[0], indices[None])
    Picture.fromarray(indices > 0).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_label(tmp_path / "x.png")[0], (indices > 0)[None])


def test_a_colour_picture_is_no_label(tmp_path: Path):
    Picture.fromarray(np.zeros((5, 6, 3), np.uint8), "RGB").save(tmp_path / "x.png")
    with pytest.raises(UserError, match="colour"):
        read_label(tmp_path / "x.png")


@pytest.mark.parametrize("bits", ["1", "8"])
@pytest.mark.parametrize("pages", [1, 3])
def test_a_mask_is_not_inverted_where_0_is_white(tmp_path: Path, bits: str, pages: int):
    """`tifffile.imwrite` writes boolean masks, and ImageJ masks with an inverted look-up table, in this way."""
    mask = np.random.default_rng(0).random((pages, 5, 6)) < 0.3
    stored = mask if bits == "1" else np.where(mask, 255, 0).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", stored, photometric="miniswhite")
    np.testing.assert_array_equal(read_label(tmp_path / "x.tif")[0], stored)
    np.testing.assert_array_equal(read_image([tmp_path / "x.tif"]).array[0], stored)


@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_a_tiff_of_tiles_is_read_as_stored(tmp_path: Path, kind: type, big: bool):
    ramp = np.arange(3 * 20 * 30).reshape(3, 20, 30).astype(kind)
    tifffile.imwrite(tmp_path / "x.tif", ramp, photometric="minisblack", tile=(16, 16), bigtiff=big)
    image = read_image([tmp_path / "x.tif"])
    np.testing.assert_array_equal(image.array, ramp[None].astype(np.float32))
    assert image.geometry.dims == 3


@pytest.mark.parametrize("white", [0, 255])
@pytest.mark.parametrize(("bits", "stored"), [(2, b"\x1b"), (4, b"\x01\x23")])
def test_a_tiff_of_a_few_bits_keeps_its_values(tmp_path: Path, bits: int, stored: bytes, white: int):
    tags = {256: 4, 257: 1, 258: bits, 259: 1, 262: int(white == 255), 273: 0, 277: 1, 278: 1, 279: len(stored)}
    tags[273] = 8 + 2 + 12 * len(tags) + 4  # the values follow
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)
    (tmp_path / "x.tif").write_bytes(directory + stored)
    assert read_image([tmp_path / "x.tif"]).array.ravel().tolist() == [0, 1, 2, 3]


def test_a_grey_tiff_with_alpha_is_read_as_stored(tmp_path: Path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 2), dtype=np.uint8)
    Picture.fromarray(pixels, "LA").save(tmp_path / "x.tif")
    np.testing.assert_array_equal(read_image([tmp_path / "x.tif"]).array, pixels[None, None, ..., 0])


@pytest.mark.parametrize(
    ("pixels", "options", "message"),
    [
        (np.ones((20, 30), np.float16), {}, "cannot be read"),
        (np.ones((20, 30, 3), np.uint16), {"tile": (16, 16), "photometric": "rgb"}, "16 bits are not supported"),
        (np.ones((20, 30), np.uint8), {"extratags": [(274, "H", 1, 6, True)]}, r"orientation tag \(6\)"),
    ],
)
def test_a_tiff_that_would_be_misread_is_refused(
    tmp_path: Path, pixels: np.ndarray, options: dict[str, Any], message: str
):
    tifffile.imwrite(tmp_path / "x.tif", pixels, **options)
    with pytest.raises(UserError, match=message):
        read_image([tmp_path / "x.tif"])


def test_a_tiff_of_several_pages_is_a_volume_with_the_spacing_of_its_side_file(tmp_path: Path, write_image: Writer):
    path = write_image(tmp_path / "x_0000.tif", RAMP)
    assert read_image([path]).geometry.spacing == (1.0, 1.0, 1.0)
    (tmp_path / "x.json").write_text('{"spacing": [5, 0.5, 0.25]}')
    image = read_image([path])
    np.testing.assert_array_equal(image.array[0], RAMP)
    assert image.geometry.spacing == (5.0, 0.5, 0.25)


@pytest.mark.parametrize("content", ['{"spacing": [0, 1, 1]}', '{"spacing": "1"}', "{}", "[1, 1, 1]"])
def test_a_side_file_without_a_valid_spacing_is_an_error(tmp_path: Path, write_image: Writer, content: str):
    path = write_image(tmp_path / "x_0000.tif", RAMP)
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=r"x\.json.*spacing"):
        read_image([path])


def test_a_tiff_is_written_with_its_side_file(tmp_path: Path):
    geometry = Geometry((4, 5, 6), (5.0, 0.5, 0.5), (0, 0, 0), tuple(np.eye(3).ravel()), 3)
    write_label(RAMP, geometry, tmp_path / "x.tif")
    assert read_label(tmp_path / "x.tif")[1].spacing == (5.0, 0.5, 0.5)
