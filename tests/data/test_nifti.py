"""NIfTI-2 files: voxels, geometry and labels written with their headers, compared with NIfTI-1 files that ITK reads."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from autocrossdim.data import nifti
from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.geometry import same_place
from autocrossdim.data.images import read_image, read_label, write_array, write_label
from autocrossdim.data.verify import verify
from autocrossdim.system.errors import UserError

RAMP = np.arange(4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
MAGIC = b"n+2\0\r\n\x1a\n"

# Formats and offsets of the same fields in both versions (nifti1.h, nifti2.h).
FIELDS = [
    ("8h", 40, "8q", 16),  # dim
    ("h", 68, "i", 504),  # intent_code
    ("h", 70, "h", 12),  # datatype
    ("h", 72, "h", 14),  # bitpix
    ("8f", 76, "8d", 104),  # pixdim
    ("2f", 112, "2d", 176),  # scl_slope, scl_inter
    ("B", 123, "i", 500),  # xyzt_units
    ("h", 252, "i", 344),  # qform_code
    ("h", 254, "i", 348),  # sform_code
    ("3f", 256, "3d", 352),  # quatern_b, quatern_c, quatern_d
    ("3f", 268, "3d", 376),  # qoffset_x, qoffset_y, qoffset_z
    ("12f", 280, "12d", 400),  # srow_x, srow_y, srow_z
]


def as_version_2(version_1: bytes, order: str = "<", **changes: Any) -> bytes:
    """Rewrite a little-endian NIfTI-1 file; `changes` are new values of fields by their offset, such as `o16=...`."""
    header = bytearray(544)
    struct.pack_into(f"{order}i", header, 0, 540)
    header[4:12] = MAGIC
    struct.pack_into(f"{order}q", header, 168, 544)
    for old, old_start, new, new_start in FIELDS:
        struct.pack_into(f"{order}{new}", header, new_start, *struct.unpack_from(f"<{old}", version_1, old_start))
    for offset, (form, *values) in changes.items():
        struct.pack_into(f"{order}{form}", header, int(offset[1:]), *values)
    voxels = version_1[352:]
    if order == ">":
        voxels = np.frombuffer(voxels, "<i2").astype(">i2").tobytes()
    return bytes(header) + voxels


Convert = Callable[..., tuple[Path, Path]]


@pytest.fixture
def pair(tmp_path: Path, write_image: Callable[..., Path]) -> Convert:
    """Write an image as version 1 with ITK, and the same as version 2; return both paths."""

    def write(array: np.ndarray = RAMP, order: str = "<", **place: Any) -> tuple[Path, Path]:
        changes = {name: place.pop(name) for name in list(place) if name.startswith("o") and name[1:].isdigit()}
        one = write_image(tmp_path / "one.nii", array, place.pop("spacing", (3, 2, 1)), **place)
        two = tmp_path / "two.nii.gz"
        two.write_bytes(gzip.compress(as_version_2(one.read_bytes(), order, **changes)))
        return one, two

    return write


@st.composite
def places(draw: st.DrawFn) -> dict[str, Any]:
    """Draw spacing (z, y, x), origin, and an oblique direction, mirrored in half of the cases."""
    direction = Rotation.from_euler("xyz", draw(st.tuples(*[st.floats(-180, 180)] * 3)), degrees=True).as_matrix()
    direction[:, 2] *= draw(st.sampled_from([1, -1]))
    return {
        "spacing": draw(st.tuples(*[st.floats(0.05, 20)] * 3)),
        "origin": draw(st.tuples(*[st.floats(-500, 500)] * 3)),
        "direction": tuple(direction.ravel()),
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=places())
def test_version_2_has_the_geometry_that_itk_reads_from_version_1(pair: Convert, place: dict[str, Any]) -> None:
    one, two = pair(**place)
    reference, image = sitk.ReadImage(str(one)), read_image([two])
    np.testing.assert_array_equal(image.array[0], RAMP)
    assert image.geometry.spacing == reference.GetSpacing()[::-1]
    assert image.geometry.origin == reference.GetOrigin()
    assert image.geometry.direction == reference.GetDirection()
    assert same_place(read_image([one]).geometry, image.geometry) is None


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=places(), order=st.sampled_from("<>"))
def test_labels_are_written_with_the_header_of_their_image(
    pair: Convert, tmp_path: Path, place: dict[str, Any], order: str
) -> None:
    _, two = pair(order=order, **place)
    image = read_image([two])
    write_label(RAMP + 300, image.geometry, tmp_path / "label.nii.gz")
    label, geometry = read_label(tmp_path / "label.nii.gz")
    np.testing.assert_array_equal(label, RAMP + 300)
    assert geometry == image.geometry
    source, written = (gzip.decompress(path.read_bytes()) for path in (two, tmp_path / "label.nii.gz"))
    assert written[:12] == source[:12]
    assert written[344:500] == source[344:500], "qform and sform, in double precision"
    write_array(RAMP / 7, image.geometry, tmp_path / "map.nii")
    np.testing.assert_array_equal(read_image([tmp_path / "map.nii"]).array[0], (RAMP / 7).astype(np.float32))


@pytest.mark.parametrize("version", [1, 2])
def test_no_text_and_no_display_range_of_an_image_is_written_to_its_segmentation(
    pair: Convert, tmp_path: Path, version: int
) -> None:
    """Programs write names and numbers of patients into these fields."""
    texts = {14: 18, 148: 80, 228: 24, 328: 16} if version == 1 else {240: 80, 320: 24, 508: 16}  # start: length
    ranges = (124, "<2f", (3000.0, -1000.0)) if version == 1 else (192, "<2d", (3000.0, -1000.0))  # cal_max, cal_min
    source = tmp_path / "planted.nii"
    one, two = pair()
    content = bytearray(one.read_bytes() if version == 1 else gzip.decompress(two.read_bytes()))
    for start, length in texts.items():
        content[start : start + length] = b"Zyxname^Planted 4711".ljust(length)[:length]
    struct.pack_into(ranges[1], content, ranges[0], *ranges[2])
    source.write_bytes(content)
    geometry = read_image([source]).geometry
    write_label(RAMP, geometry, tmp_path / "label.nii")
    written = (tmp_path / "label.nii").read_bytes()
    assert b"Zyxname" in content
    assert b"Zyx" not in written
    assert struct.unpack_from(ranges[1], written, ranges[0]) == (0, 0)
    assert read_label(tmp_path / "label.nii")[1] == geometry


def test_voxels_are_scaled_as_the_header_says(pair: Convert) -> None:
    _, two = pair(o176=("2d", 0.5, -3.0))
    np.testing.assert_allclose(read_image([two]).array[0], RAMP * 0.5 - 3)


def test_a_flat_image_has_one_slice(pair: Convert) -> None:
    _, two = pair(RAMP[0], spacing=(2, 3))
    geometry = read_image([two]).geometry
    assert (geometry.dims, geometry.shape, geometry.spacing) == (2, (1, 5, 6), (1.0, 2.0, 3.0))


def test_another_format_keeps_the_geometry(pair: Convert, tmp_path: Path) -> None:
    _, two = pair(origin=(1.5, 2.5, 3.5))
    geometry = read_image([two]).geometry
    write_label(RAMP, geometry, tmp_path / "y.mha")
    assert same_place(geometry, read_label(tmp_path / "y.mha")[1]) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"o4": ("4s", b"n+3\0")}, "not a NIfTI file"),
        ({"o8": ("4s", b"\n\n\n\n")}, "not a NIfTI file"),  # mangled by a transfer as text
        ({"o112": ("d", float("nan"))}, "a spacing of"),
        ({"o12": ("h", 32)}, "data type 32"),  # complex
        ({"o24": ("q", -5)}, "an axis without voxels"),
        ({"o24": ("q", 2**40)}, "truncated"),
        ({"o168": ("q", 2**50)}, "places the voxels at byte"),
        ({"o168": ("q", -1)}, "places the voxels at byte"),
    ],
)
def test_what_cannot_be_read_is_named(pair: Convert, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"two\.nii\.gz: .*{message}"):
        read_image([pair(**change)[1]])


def test_an_axis_longer_than_version_1_allows_is_refused(pair: Convert) -> None:
    _, two = pair(np.zeros((1, 1, 30_000), np.int16))
    content = bytearray(gzip.decompress(two.read_bytes()))
    struct.pack_into("<q", content, 24, 40_000)
    two.write_bytes(gzip.compress(bytes(content) + bytes(20_000)))
    with pytest.raises(UserError, match=r"two\.nii\.gz: an axis of 40,000 voxels"):
        read_image([two])


def test_a_dataset_may_mix_both_versions(make_dataset: Callable[..., Path]) -> None:
    raw = make_dataset()
    for file in (raw / "imagesTr").iterdir():
        file.write_bytes(gzip.compress(as_version_2(gzip.decompress(file.read_bytes()))))
    report = verify(raw)
    assert report.faults == []
    assert load_dataset(raw).file_ending == ".nii.gz"


@pytest.mark.parametrize("order", ["1", "<", ">"])
@pytest.mark.parametrize("count", [1, 3])
def test_volumes_of_a_4d_file_keep_voxels_scaling_and_place(tmp_path: Path, order: str, count: int) -> None:
    stored = np.stack([RAMP + 200 * number for number in range(count)])
    image = sitk.JoinSeries([sitk.GetImageFromArray(volume) for volume in stored])
    image.SetSpacing((0.5, 0.75, 3.0, 1.0))
    image.SetOrigin((7.0, -3.0, 2.5, 0.0))
    sitk.WriteImage(image, str(tmp_path / "4d.nii"))
    content = bytearray((tmp_path / "4d.nii").read_bytes())
    struct.pack_into("<h", content, 40, 4)  # ITK drops an axis of one volume
    struct.pack_into("<2f", content, 112, 2.0, 5.0)  # scl_slope, scl_inter
    (tmp_path / "4d.nii").write_bytes(content if order == "1" else as_version_2(bytes(content), order))
    assert nifti.count_volumes(tmp_path / "4d.nii") == count
    for number, volume in enumerate(nifti.volumes(tmp_path / "4d.nii")):
        (tmp_path / "3d.nii").write_bytes(volume)
        assert nifti.count_volumes(tmp_path / "3d.nii") is None
        found = read_image([tmp_path / "3d.nii"])
        np.testing.assert_array_equal(found.array[0], 2.0 * stored[number] + 5.0)
        assert found.geometry.spacing == pytest.approx((3.0, 0.75, 0.5))
        assert found.geometry.origin == pytest.approx((7.0, -3.0, 2.5))
