import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from autocrossdim.data.geometry import Geometry, same_place
from autocrossdim.data.images import read_dicom_series, read_image, read_label, write_array, write_label
from autocrossdim.system.errors import UserError

Writer = Callable[..., Path]
RAMP = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
EXACT_ENDINGS = [".nii.gz", ".nii", ".nrrd", ".mha"]


# --- what is read


@pytest.mark.parametrize("ending", EXACT_ENDINGS)
def test_a_volume_comes_as_channel_z_y_x_with_its_geometry(tmp_path: Path, write_image: Writer, ending: str):
    path = write_image(tmp_path / f"x{ending}", RAMP, (3, 2, 1), origin=(7, 8, 9))
    image = read_image([path])
    assert image.array.dtype == np.float32
    np.testing.assert_array_equal(image.array, RAMP[None])
    assert image.geometry.shape == (4, 5, 6)
    assert image.geometry.spacing == (3.0, 2.0, 1.0)
    assert image.geometry.origin == (7.0, 8.0, 9.0)
    assert image.geometry.dims == 3


def test_files_become_channels_in_their_order(tmp_path: Path, write_image: Writer):
    paths = [write_image(tmp_path / f"x_{c:04d}.nii.gz", RAMP + c) for c in range(3)]
    np.testing.assert_array_equal(read_image(paths).array, np.stack([RAMP, RAMP + 1, RAMP + 2]))


@pytest.mark.parametrize("ending", EXACT_ENDINGS)
def test_a_colour_volume_has_three_channels_and_serves_as_geometry(tmp_path: Path, ending: str):
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    source = sitk.GetImageFromArray(colours, isVector=True)
    source.SetSpacing((0.7, 0.8, 0.9))
    sitk.WriteImage(source, str(tmp_path / f"x{ending}"))
    image = read_image([tmp_path / f"x{ending}"])
    np.testing.assert_array_equal(image.array, np.moveaxis(colours, -1, 0))
    write_label(RAMP, image.geometry, tmp_path / f"y{ending}")
    label, geometry = read_label(tmp_path / f"y{ending}")
    np.testing.assert_array_equal(label, RAMP)
    assert same_place(image.geometry, geometry) is None


def test_a_2d_nifti_has_one_slice(tmp_path: Path, write_image: Writer):
    path = write_image(tmp_path / "x.nii.gz", RAMP[0], (2, 3))
    geometry = read_image([path]).geometry
    assert (geometry.dims, geometry.shape, geometry.spacing) == (2, (1, 5, 6), (1.0, 2.0, 3.0))
    assert len(geometry.direction) == 4


# --- what is refused


def test_a_missing_file_and_an_unknown_format_are_named(tmp_path: Path):
    with pytest.raises(UserError, match=r"gone\.nii\.gz: no such file"):
        read_image([tmp_path / "gone.nii.gz"])
    with pytest.raises(UserError, match=r"x\.jpg: not a supported format"):
        read_image([tmp_path / "x.jpg"])


@pytest.mark.parametrize("ending", [*EXACT_ENDINGS, ".png", ".tif", ".bmp"])
@pytest.mark.parametrize("kept", [0, 0.3, 0.7])
def test_a_file_that_was_cut_short_is_an_error(tmp_path: Path, write_image: Writer, ending: str, kept: float):
    noise = np.random.default_rng(0).integers(0, 255, (8, 40, 40)).astype(np.uint8)
    path = write_image(tmp_path / f"x{ending}", noise if ending not in (".png", ".bmp") else noise[0])
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    for read in (lambda: read_image([path]), lambda: read_label(path)):
        with pytest.raises(UserError, match=f"x{ending}"):
            read()


def test_damage_inside_a_compressed_nifti_is_an_error(tmp_path: Path, write_image: Writer):
    noise = np.random.default_rng(0).normal(size=(8, 40, 40))
    path = write_image(tmp_path / "x.nii.gz", noise)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        read_image([path])


@pytest.mark.parametrize("ending", EXACT_ENDINGS)
def test_a_file_that_is_something_else_is_an_error(tmp_path: Path, ending: str):
    path = tmp_path / f"x{ending}"
    path.write_bytes(b"<html>404 not found</html>" * 40)
    with pytest.raises(UserError, match=f"x{ending}"):
        read_image([path])


def test_a_4d_image_is_an_error(tmp_path: Path):
    sitk.WriteImage(sitk.Image([4, 5, 6, 2], sitk.sitkInt16), str(tmp_path / "x.nii.gz"))
    with pytest.raises(UserError, match=r"4D image \(4 × 5 × 6 × 2\)"):
        read_image([tmp_path / "x.nii.gz"])


def test_complex_numbers_are_an_error(tmp_path: Path):
    sitk.WriteImage(sitk.Image([4, 5, 6], sitk.sitkComplexFloat32), str(tmp_path / "x.nrrd"))
    with pytest.raises(UserError, match="complex"):
        read_image([tmp_path / "x.nrrd"])


@pytest.mark.parametrize("spacing", [0.0, float("nan"), float("inf")])
def test_a_nifti_spacing_of_zero_or_nan_is_an_error(tmp_path: Path, write_image: Writer, spacing: float):
    path = write_image(tmp_path / "x.nii", RAMP)
    content = bytearray(path.read_bytes())
    struct.pack_into("<f", content, 84, spacing)  # pixdim[2]; ITK would make it 1 mm
    path.write_bytes(content)
    with pytest.raises(UserError, match="spacing"):
        read_image([path])


@pytest.mark.parametrize("spacing", ["0", "nan"])
def test_an_mha_spacing_of_zero_or_nan_is_an_error(tmp_path: Path, write_image: Writer, spacing: str):
    path = write_image(tmp_path / "x.mha", RAMP)
    content = path.read_bytes().replace(b"Spacing = 1 1 1", f"Spacing = 1 {spacing} 1".encode())
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"(?i)spacing"):
        read_image([path])


def test_channels_that_lie_elsewhere_are_an_error(tmp_path: Path, write_image: Writer):
    a = write_image(tmp_path / "x_0000.nii.gz", RAMP, (1, 1, 1))
    b = write_image(tmp_path / "x_0001.nii.gz", RAMP, (1, 1, 1.5))
    with pytest.raises(UserError, match=r"x_0001\.nii\.gz: its geometry differs from that of x_0000\.nii\.gz: spacing"):
        read_image([a, b])


@pytest.mark.parametrize("ending", [*EXACT_ENDINGS, ".tif"])
def test_nan_and_infinite_voxels_are_kept_for_others_to_judge(tmp_path: Path, write_image: Writer, ending: str):
    """ITK reads them as 0 from a NIfTI file."""
    array = RAMP.astype(np.float32)
    array[0, 0, :3] = np.nan, np.inf, -np.inf
    np.testing.assert_array_equal(read_image([write_image(tmp_path / f"x{ending}", array)]).array[0], array)


def test_a_nifti_is_not_mixed_up_with_its_uncompressed_twin(tmp_path: Path, write_image: Writer):
    """ITK reads the voxels of x.nii.gz from x.nii if there is one."""
    path = write_image(tmp_path / "x.nii.gz", RAMP)
    write_image(tmp_path / "x.nii", RAMP + 1)
    np.testing.assert_array_equal(read_image([path]).array[0], RAMP)


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "i8", "f4", "f8"])
def test_every_type_of_voxel_is_read_and_scaled_as_the_nifti_header_says(
    tmp_path: Path, write_image: Writer, dtype: str
):
    array = (RAMP - (0 if dtype[0] == "u" else 60)).astype(dtype)
    path = write_image(tmp_path / "x.nii", array)
    np.testing.assert_array_equal(read_label(path)[0], array)
    content = bytearray(path.read_bytes())
    struct.pack_into("<2f", content, 112, 0.5, -3)
    path.write_bytes(content)
    np.testing.assert_allclose(read_image([path]).array[0], array * 0.5 - 3)


# --- labels


def test_label_values_come_as_they_are(tmp_path: Path, write_image: Writer):
    for values in ((0, 1, 2), (0, 255), (0, 7, 1000)):
        label = np.resize(values, (4, 5, 6)).astype(np.uint16)
        array, geometry = read_label(write_image(tmp_path / "x.nii.gz", label))
        np.testing.assert_array_equal(array, label)
        assert array.dtype.kind in "iu"
        assert geometry.shape == (4, 5, 6)


def test_floats_are_labels_if_they_are_whole(tmp_path: Path, write_image: Writer):
    label = np.resize([0, 1, 2], (4, 5, 6)).astype(np.float64)
    array, _ = read_label(write_image(tmp_path / "x.nrrd", label))
    np.testing.assert_array_equal(array, label)
    assert array.dtype == np.int32
    for value in (0.5, np.nan, np.inf):
        label[0, 0, 0] = value
        with pytest.raises(UserError, match="whole numbers"):
            read_label(write_image(tmp_path / "x.nrrd", label))


# --- what is written


@st.composite
def places(draw: st.DrawFn) -> dict[str, tuple[float, ...]]:
    """Spacing, origin and a direction matrix, oblique, mirrored for half of them."""
    finite = st.floats(-500, 500, allow_nan=False)
    angles = draw(st.tuples(*[st.floats(-180, 180)] * 3))
    direction = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    direction[:, 2] *= draw(st.sampled_from([1, -1]))
    return {
        "spacing": draw(st.tuples(*[st.floats(0.05, 20)] * 3)),
        "origin": draw(st.tuples(finite, finite, finite)),
        "direction": tuple(direction.ravel()),
    }


@pytest.mark.parametrize("ending", EXACT_ENDINGS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=places())
def test_geometry_comes_back_bit_by_bit(tmp_path: Path, write_image: Writer, ending: str, place):
    source = write_image(tmp_path / f"source{ending}", RAMP, **place)
    geometry = Geometry.from_json(json.loads(json.dumps(read_image([source]).geometry.to_json())))
    write_label(RAMP % 3, geometry, tmp_path / f"label{ending}")
    write_array(RAMP / 7, geometry, tmp_path / f"map{ending}")

    reference = sitk.ReadImage(str(source))
    for name in ("label", "map"):
        written = sitk.ReadImage(str(tmp_path / f"{name}{ending}"))
        assert written.GetOrigin() == reference.GetOrigin()
        assert written.GetSpacing() == reference.GetSpacing()
        assert written.GetDirection() == reference.GetDirection()
    np.testing.assert_array_equal(read_label(tmp_path / f"label{ending}")[0], RAMP % 3)
    np.testing.assert_array_equal(read_image([tmp_path / f"map{ending}"]).array[0], (RAMP / 7).astype(np.float32))


def test_geometry_comes_back_bit_by_bit_on_real_scans(tmp_path: Path, real_data: Path):
    sources = [*(real_data / "Dataset045_SunnybrookLV").glob("*Tr/*.nii.gz")]
    sources += [p for p in (real_data / "formats").rglob("*") if p.name.endswith((".nii.gz", ".nii", ".nrrd"))]
    sources = [p for p in sources if p.name != "example4d.nii.gz"]
    assert len(sources) > 15
    for source in sources:
        geometry = read_image([source]).geometry
        ending = ".nrrd" if source.suffix == ".nrrd" else ".nii.gz"
        write_label(np.zeros(geometry.shape, np.uint8), geometry, tmp_path / f"label{ending}")
        label, written = read_label(tmp_path / f"label{ending}")
        assert not label.any()
        assert (written.origin, written.spacing, written.direction) == (
            geometry.origin,
            geometry.spacing,
            geometry.direction,
        ), source


@pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii.gz"])
def test_another_format_than_the_source_keeps_the_place(tmp_path: Path, write_image: Writer, ending: str):
    direction = Rotation.from_euler("xyz", (20, 30, 40), degrees=True).as_matrix().ravel()
    source = write_image(tmp_path / "x.mha", RAMP, (3, 0.7, 0.7), origin=(1.1, -2.2, 3), direction=direction)
    geometry = read_image([source]).geometry
    write_label(RAMP, geometry, tmp_path / f"y{ending}")
    label, written = read_label(tmp_path / f"y{ending}")
    np.testing.assert_array_equal(label, RAMP)
    assert same_place(geometry, written) is None


def test_a_big_endian_nifti_comes_back_as_it_went(tmp_path: Path, write_image: Writer):
    little = write_image(tmp_path / "x.nii", RAMP, (3, 2, 1), origin=(4, 5, 6)).read_bytes()
    big = bytearray(little[:352])
    for numbers, start in (
        ("i", 0),
        ("8h", 40),
        ("2h", 70),
        ("8f", 76),
        ("3f", 108),
        ("2h", 252),
        ("18f", 256),
    ):
        struct.pack_into(f">{numbers}", big, start, *struct.unpack_from(f"<{numbers}", little, start))
    (tmp_path / "x.nii").write_bytes(bytes(big) + RAMP.astype(">i2").tobytes())
    image = read_image([tmp_path / "x.nii"])
    np.testing.assert_array_equal(image.array[0], RAMP)
    assert image.geometry.origin == (4.0, 5.0, 6.0)
    write_label(RAMP + 300, image.geometry, tmp_path / "y.nii.gz")
    label, geometry = read_label(tmp_path / "y.nii.gz")
    np.testing.assert_array_equal(label, RAMP + 300)
    assert label.dtype.isnative
    assert label.flags.writeable
    assert geometry == image.geometry


def test_a_sheared_nifti_is_read_and_written_with_its_own_header(tmp_path: Path, write_image: Writer):
    path = write_image(tmp_path / "x.nii", RAMP)
    content = bytearray(path.read_bytes())
    struct.pack_into("<h", content, 252, 0)
    struct.pack_into("<f", content, 284, 0.3)  # an entry of the sform that makes it no rotation
    path.write_bytes(content)
    image = read_image([path])
    write_label(RAMP, image.geometry, tmp_path / "y.nii.gz")
    assert gzip.decompress((tmp_path / "y.nii.gz").read_bytes())[252:328] == bytes(content[252:328])


@pytest.mark.parametrize(("highest", "dtype"), [(255, "8-bit unsigned"), (256, "16-bit unsigned")])
@pytest.mark.parametrize("ending", [".nii.gz", ".png", ".tif", ".mha"])
def test_labels_are_as_small_as_they_can_be(tmp_path: Path, ending: str, highest: int, dtype: str):
    dims = 2 if ending == ".png" else 3
    shape = (1, 5, 6) if dims == 2 else (4, 5, 6)
    geometry = Geometry(shape, (1, 1, 1), (0.0,) * dims, tuple(np.eye(dims).ravel()), dims)
    label = np.resize([0, highest], shape)
    write_label(label, geometry, tmp_path / f"x{ending}")
    assert dtype in sitk.ReadImage(str(tmp_path / f"x{ending}")).GetPixelIDTypeAsString()
    np.testing.assert_array_equal(read_label(tmp_path / f"x{ending}")[0], label)


def test_what_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path):
    geometry = Geometry((1, 5, 6), (1, 1, 1), (0, 0), (1, 0, 0, 1), 2)
    with pytest.raises(UserError, match="0 to 65535"):
        write_label(np.full((1, 5, 6), -1), geometry, tmp_path / "x.png")
    with pytest.raises(UserError, match="fractions"):
        write_array(np.zeros((1, 5, 6)), geometry, tmp_path / "x.png")
    with pytest.raises(UserError, match=r"x\.bmp: cannot be written"):
        write_label(np.full((1, 5, 6), 1000), geometry, tmp_path / "x.bmp")
    with pytest.raises(ValueError, match="shape"):
        write_label(np.zeros((2, 5, 6)), geometry, tmp_path / "x.png")
    assert not list(tmp_path.iterdir())


# --- DICOM


def write_dicom(folder: Path, positions: list[float], series: str = "1.2.3", first: int = 0, tilt: float = 0):
    """Write slices that hold their own number, at `positions` (mm) along z."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, z in enumerate(positions, start=first):
        image = sitk.Image([6, 5, 1], sitk.sitkInt16) + number
        image.SetSpacing([0.5, 0.5, 1])
        image.SetOrigin([1, 2 + tilt * z, z])
        for tag, value in {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.4",  # MR image storage
            "0008|0018": f"{series}.{number + 1}",
            "0008|0060": "MR",
            "0020|000d": "1.2",
            "0020|000e": series,
            "0020|0032": f"1\\{2 + tilt * z}\\{z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{100 - number}.dcm"))
        writer.Execute(image)
    return folder


def test_a_dicom_series_is_stacked_by_position(tmp_path: Path):
    image = read_image([write_dicom(tmp_path / "s", [10, 4, 7, 1])])
    np.testing.assert_array_equal(image.array[0, :, 0, 0], [3, 1, 2, 0])
    assert image.geometry.spacing == (3.0, 0.5, 0.5)
    assert image.geometry.origin == (1.0, 2.0, 1.0)


def test_two_dicom_series_are_an_error(tmp_path: Path):
    write_dicom(tmp_path / "s", [1, 2, 3])
    write_dicom(tmp_path / "s", [1, 2, 3], series="1.2.4", first=3)
    with pytest.raises(UserError, match=r"2 DICOM series \(first slices: \d+\.dcm, \d+\.dcm\)") as refused:
        read_dicom_series(tmp_path / "s")
    # In the hospital's archive, the UID leads to the patient.
    assert "1.2.4" not in str(refused.value)


def test_two_slices_at_one_position_are_an_error(tmp_path: Path):
    with pytest.raises(UserError, match="6 slices at only 3 positions"):
        read_dicom_series(write_dicom(tmp_path / "s", [1, 1, 2, 2, 3, 3]))


def test_a_missing_dicom_slice_is_an_error_but_rounded_positions_are_not(tmp_path: Path):
    with pytest.raises(UserError, match=r"unevenly spaced \(2.00 to 4.00 mm\)"):
        read_dicom_series(write_dicom(tmp_path / "s", [0, 2, 4, 8, 10]))
    read_dicom_series(write_dicom(tmp_path / "t", [0, 1.2, 2.5, 3.8, 5.0]))


def test_a_tilted_gantry_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match="tilted"):
        read_dicom_series(write_dicom(tmp_path / "s", [0, 2, 4], tilt=0.3))


def test_a_folder_without_dicom_is_an_error(tmp_path: Path):
    with pytest.raises(UserError, match="no DICOM series"):
        read_dicom_series(tmp_path)


def test_a_real_dicom_series_is_the_volume_it_was_converted_to(real_data: Path):
    folder = real_data / "formats" / "dicom_sunnybrook"
    image = read_image([folder / "ED_series"])
    volume = read_image([real_data / "Dataset045_SunnybrookLV/imagesTr/SC-HF-I-1_ED_0000.nii.gz"])
    np.testing.assert_array_equal(image.array, volume.array)
    assert same_place(image.geometry, volume.geometry) is None
    with pytest.raises(UserError, match="18 slices at only 9 positions"):
        read_image([folder / "mixed_phases_same_positions"])
