"""Damaged DICOM files are named before GDCM reads them, and none is left out in silence."""

import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocrossdim.data.dicom import check_dicom, dicom_folders
from autocrossdim.data.images import read_dicom_series
from autocrossdim.system.errors import UserError

EXPLICIT, IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
OPEN = 0xFFFFFFFF


def element(tag: int, kind: str, value: bytes, length: int | None = None, order: str = "<") -> bytes:
    """One element as the standard writes it; `kind` is empty in implicit files and for items."""
    head = struct.pack(order + "HH", tag >> 16, tag & 0xFFFF)
    length = len(value) if length is None else length
    if not kind:
        return head + struct.pack(order + "I", length) + value
    wide = kind in ("OB", "OW", "SQ", "UN")
    return (
        head
        + kind.encode()
        + struct.pack(order + ("HI" if wide else "H"), *((0, length) if wide else (length,)))
        + value
    )


def dicom(path: Path, syntax: str, *elements: bytes) -> Path:
    path.write_bytes(bytes(128) + b"DICM" + element(0x00020010, "UI", syntax.encode() + b"\0") + b"".join(elements))
    return path


def test_sound_files_of_every_kind_are_let_through(tmp_path: Path) -> None:
    name, item, end = element(0x00100010, "PN", b"A^"), (0xFFFEE000, ""), element(0xFFFEE00D, "", b"")
    closed = element(0x00081115, "SQ", element(*item, name))
    opened = element(0x00081115, "SQ", element(*item, name + end, OPEN) + element(0xFFFEE0DD, "", b""), OPEN)
    pieces = element(*item, b"") + element(*item, b"\x7f" * 40) + element(0xFFFEE0DD, "", b"")
    check_dicom(dicom(tmp_path / "a", EXPLICIT, closed, opened, element(0x7FE00010, "OB", pieces, OPEN)))
    check_dicom(dicom(tmp_path / "b", IMPLICIT, element(0x00100010, "", b"A^"), element(0x7FE00010, "", bytes(99))))
    big = element(0x00100010, "PN", b"A^", order=">"), element(0x7FE00010, "OW", bytes(98), order=">")
    check_dicom(dicom(tmp_path / "c", BIG_ENDIAN, *big))
    # A description without kinds, against the standard.
    described = element(0x00020010, "", EXPLICIT.encode() + b"\0") + name
    (tmp_path / "d").write_bytes(bytes(128) + b"DICM" + described)
    check_dicom(tmp_path / "d")


@pytest.mark.parametrize(
    ("syntax", "broken"),
    [
        (EXPLICIT, element(0x00100010, "PN", b"A^", 60000)),
        (EXPLICIT, element(0x7FE00010, "OW", b"1234", 2**31)),
        (EXPLICIT, element(0x00081115, "SQ", element(0xFFFEE000, "", element(0x00100010, "UN", b"", 2**30)))),
        (IMPLICIT, element(0x00100010, "", b"A^", 2**30)),
        (BIG_ENDIAN, element(0x7FE00010, "OW", b"1234", 2**31, ">")),
    ],
)
def test_an_element_longer_than_its_file_is_named(syntax: str, broken: bytes, tmp_path: Path) -> None:
    path = dicom(tmp_path / "a.dcm", syntax, broken)
    with pytest.raises(UserError, match=r"a\.dcm: damaged: element .* but the file has"):
        check_dicom(path)
    assert dicom_folders(tmp_path) == [tmp_path]
    with pytest.raises(UserError, match="damaged"):
        read_dicom_series(tmp_path)


@pytest.mark.parametrize("kept", [0, 100, None])
@pytest.mark.parametrize("number", [0, 3])
def test_a_damaged_slice_at_an_end_does_not_make_the_volume_shorter(
    number: int, kept: int | None, write_slices: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_slices(tmp_path / "series")
    assert read_dicom_series(folder).array.shape == (1, 4, 6, 5)
    broken = folder / f"{number}.dcm"
    content = broken.read_bytes()
    if kept is None:
        kept = content.index(b"\x20\0\x0e\0")  # where the series' number stands
    broken.write_bytes(content[:kept])
    with pytest.raises(UserError, match=rf"{number}\.dcm: not a slice"):
        read_dicom_series(folder)


def test_an_index_beside_the_slices_is_no_slice(write_slices: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_slices(tmp_path / "series")
    for name in ("DICOMDIR", ".DS_Store", "notes.txt"):
        (folder / name).write_bytes(bytes(128) + b"DICM" * (name == "DICOMDIR"))
    assert read_dicom_series(folder).array.shape == (1, 4, 6, 5)


@pytest.mark.parametrize("kind", ["SEG", "RTSTRUCT", "RTDOSE", "RTINTENT", "SR", "PR"])
def test_annotations_and_reports_beside_the_slices_are_left_out(
    kind: str, write_series: Callable[..., list[Any]], tmp_path: Path
) -> None:
    storage = {
        "SEG": "66.4",
        "RTSTRUCT": "481.3",
        "RTDOSE": "481.2",
        "RTINTENT": "481.10",
        "SR": "88.33",
        "PR": "11.1",
    }[kind]
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    content = write_series(tmp_path / "images", array)[0]
    content.SOPClassUID = content.file_meta.MediaStorageSOPClassUID = f"1.2.840.10008.5.1.4.1.1.{storage}"
    content.SOPInstanceUID = content.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    content.Modality, content.SeriesInstanceUID = kind, "1.2.3"
    if kind not in ("SEG", "RTDOSE"):
        del content.PixelData, content.Rows, content.Columns
    (tmp_path / "drawn").mkdir()
    for folder in ("images", "drawn"):
        content.save_as(tmp_path / folder / "drawn.dcm")
    np.testing.assert_array_equal(read_dicom_series(tmp_path / "images").array[0], array)
    assert dicom_folders(tmp_path) == [tmp_path / "images"]
    with pytest.raises(UserError, match="contains no DICOM series"):
        read_dicom_series(tmp_path / "drawn")


def test_radiographs_of_radiotherapy_are_images(write_series: Callable[..., list[Any]], tmp_path: Path) -> None:
    for content in write_series(tmp_path, np.zeros((1, 5, 6))):
        content.SOPClassUID = content.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.1"
        content.save_as(content.filename)
    assert read_dicom_series(tmp_path).array.shape[-2:] == (5, 6)


def test_a_series_without_directions_of_rows_and_columns_has_no_orientation(
    write_series: Callable[..., list[Any]], tmp_path: Path
) -> None:
    """GDCM takes such slices as axial, as which a sagittal series would be segmented wrongly."""
    array = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    slices = write_series(tmp_path, array, direction=(0, 0, -1, 1, 0, 0, 0, -1, 0))
    assert read_dicom_series(tmp_path).geometry.orientation == "RIP"
    for z, content in enumerate(slices):
        content.ImagePositionPatient = [0, 0, 4 * z]
        if z % 2:
            del content.ImageOrientationPatient
        else:
            content.ImageOrientationPatient = None
        content.save_as(content.filename)
    geometry = read_dicom_series(tmp_path).geometry
    assert (geometry.shape, geometry.orientation) == ((4, 5, 6), None)


@pytest.fixture
def write_frames(write_series: Callable[..., list[Any]], tmp_path: Path) -> Callable[..., Path]:
    """Write one file with a frame per position (x, y, z): `write_frames(array, positions, slopes=...)`."""
    pydicom = pytest.importorskip("pydicom")

    def sequence(**elements: Any) -> Any:
        item = pydicom.Dataset()
        for keyword, value in elements.items():
            setattr(item, keyword, value)
        return pydicom.Sequence([item])

    def write(
        array: np.ndarray,
        positions: Sequence[Sequence[float]],
        *,
        slopes: Sequence[float] | None = None,
        offset: float = 0,
        implicit: bool = False,
    ) -> Path:
        folder = tmp_path / "frames"
        (content,) = write_series(folder, array[:1])
        content.SOPClassUID = content.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
        content.NumberOfFrames, content.PixelData = len(array), array.astype(np.int16).tobytes()
        content.SharedFunctionalGroupsSequence = sequence(
            PlaneOrientationSequence=sequence(ImageOrientationPatient=content.ImageOrientationPatient),
            PixelMeasuresSequence=sequence(PixelSpacing=[1.5, 0.75], SliceThickness=2),
        )
        content.PerFrameFunctionalGroupsSequence = pydicom.Sequence(
            sequence(
                PlanePositionSequence=sequence(ImagePositionPatient=list(position)),
                PixelValueTransformationSequence=sequence(
                    RescaleSlope=slope, RescaleIntercept=offset * index, RescaleType="US"
                ),
            )[0]
            for index, (position, slope) in enumerate(zip(positions, slopes or [1] * len(positions), strict=True))
        )
        for keyword in ("ImageOrientationPatient", "ImagePositionPatient", "RescaleSlope", "RescaleIntercept"):
            delattr(content, keyword)
        if implicit:
            content.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
        content.save_as(content.filename, implicit_vr=implicit, little_endian=True)
        return folder

    return write


FRAMES = np.arange(4 * 5 * 6).reshape(4, 5, 6)


@pytest.mark.parametrize("implicit", [False, True])
def test_the_geometry_of_a_file_with_several_frames_is_that_in_its_sequences(
    implicit: bool, write_frames: Callable[..., Path]
) -> None:
    """GDCM calls the voxels 1 mm wide where positions are rounded, and reads no directions of implicit files."""
    folder = write_frames(FRAMES, [(-4, 7, 0), (-4, 7, 3.001), (-4, 7, 5.998), (-4, 7, 9)], implicit=implicit)
    image = read_dicom_series(folder)
    assert image.geometry.orientation == "SPL"
    assert (image.geometry.spacing, image.geometry.origin) == ((3.0, 1.5, 0.75), (-4.0, 7.0, 0.0))
    np.testing.assert_array_equal(image.array[0], FRAMES)


def test_frames_are_read_in_the_order_of_their_positions(write_frames: Callable[..., Path]) -> None:
    order = [2, 0, 3, 1]
    image = read_dicom_series(write_frames(FRAMES, [(-4, 7, 3 * z) for z in order]))
    assert (image.geometry.spacing, image.geometry.origin) == ((3.0, 1.5, 0.75), (-4.0, 7.0, 0.0))
    np.testing.assert_array_equal(image.array[0][order], FRAMES)


def test_frames_keep_their_values_if_each_is_scaled_by_a_slope_of_its_own(write_frames: Callable[..., Path]) -> None:
    slopes = [0.3, 0.25, 1000, 1.5]
    folder = write_frames(FRAMES, [(-4, 7, 3 * z) for z in range(4)], slopes=slopes, offset=-7)
    expected = FRAMES * np.array(slopes).reshape(-1, 1, 1) - 7 * np.arange(4).reshape(-1, 1, 1)
    np.testing.assert_allclose(read_dicom_series(folder).array[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("heights", "message"),
    [([0, 3, 6, 12], "unevenly spaced"), ([0, 0, 3, 3], "4 slices at only 2 positions")],
    ids=["gap", "phases"],
)
def test_frames_that_are_no_volume_are_refused(
    heights: list[float], message: str, write_frames: Callable[..., Path]
) -> None:
    with pytest.raises(UserError, match=message):
        read_dicom_series(write_frames(FRAMES, [(-4, 7, z) for z in heights]))


def test_an_icon_does_not_hide_the_positions_of_frames(write_frames: Callable[..., Path]) -> None:
    pydicom = pytest.importorskip("pydicom")
    folder = write_frames(FRAMES, [(-4, 7, z) for z in (9, 6, 3, 0)])
    (file,) = folder.iterdir()
    content, icon = pydicom.dcmread(file), pydicom.Dataset()
    icon.Rows, icon.Columns, icon.SamplesPerPixel, icon.PhotometricInterpretation = 2, 2, 1, "MONOCHROME2"
    icon.BitsAllocated, icon.BitsStored, icon.HighBit, icon.PixelRepresentation = 8, 8, 7, 0
    icon.PixelData = bytes(4)
    content.IconImageSequence = pydicom.Sequence([icon])
    content.save_as(file)
    np.testing.assert_array_equal(read_dicom_series(folder).array[0], FRAMES[::-1])


def test_frames_without_positions_of_their_own_are_refused(write_frames: Callable[..., Path]) -> None:
    pydicom = pytest.importorskip("pydicom")
    folder = write_frames(FRAMES, [(-4, 7, 3 * z) for z in range(4)])
    (file,) = folder.iterdir()
    content = pydicom.dcmread(file)
    del content.PerFrameFunctionalGroupsSequence[-1]
    content.save_as(file)
    with pytest.raises(UserError, match="gives the positions of 3 frames, but has another number"):
        read_dicom_series(folder)


def test_slices_of_another_pixel_spacing_are_named(write_series: Callable[..., list[Any]], tmp_path: Path) -> None:
    """ITK takes the spacing of the first slice for all."""
    odd = write_series(tmp_path, FRAMES)[2]
    odd.PixelSpacing = [3.0, 1.5]
    odd.save_as(odd.filename)
    with pytest.raises(UserError, match=f"{Path(odd.filename).name}: its pixel spacing differs"):
        read_dicom_series(tmp_path)


def test_slices_keep_their_values_if_each_is_scaled_by_a_slope_of_its_own(
    tmp_path: Path, write_series: Callable[..., list[Any]]
) -> None:
    """As in PET. The slope of the first slice, which may be empty, is whole."""
    stored, slopes = np.full((4, 5, 6), 200, np.int16), [1, 0.25, 1000, 1.5]
    for content, slope in zip(write_series(tmp_path, stored), slopes, strict=True):
        content.RescaleSlope = slope
        content.save_as(content.filename, enforce_file_format=True)
    expected = stored * np.array(slopes).reshape(-1, 1, 1)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array[0], expected)


def test_slices_in_colour_have_three_channels(tmp_path: Path, write_series: Callable[..., list[Any]]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    for content, plane in zip(write_series(tmp_path, pixels[..., 0]), pixels, strict=True):
        content.SamplesPerPixel, content.PhotometricInterpretation, content.PlanarConfiguration = 3, "RGB", 0
        content.BitsAllocated, content.BitsStored, content.HighBit, content.PixelRepresentation = 8, 8, 7, 0
        content.PixelData = plane.tobytes()
        content.save_as(content.filename, enforce_file_format=True)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, np.moveaxis(pixels, -1, 0))
