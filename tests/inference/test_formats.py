"""The scans people have, read as `predict` reads them: a right result on the scan's own grid, or the right error.

The network says where a voxel is brighter than a level, so what must come out is known from the file alone, which is
read here by SimpleITK or from what was written.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from autocrossdim.data.images import read_image, write_label
from autocrossdim.inference.inputs import find_inputs
from autocrossdim.inference.predictor import Model, Predictor
from autocrossdim.system.errors import UserError

MakePlan = Callable[..., Any]


class Brighter(nn.Module):
    """Logits of background and of what is brighter than `level`."""

    def __init__(self, level: float) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(float(level)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.level - x, x - self.level], dim=1)


def segment(source: Path, level: float, make_plan: MakePlan, output: Path, ending: str) -> None:
    """Segment the one case at `source`, without resampling, to the file `output`."""
    (case,) = find_inputs(source, 1, ending)
    spacing = read_image(case.images).geometry.spacing
    plan = make_plan(2, spacing, patch_size=(128, 128), batch_size=8, file_ending=ending)
    predictor = Predictor([Model(plan, plan.configuration(), [Brighter(level).eval()])], mirroring=False)
    image, segmentation = predictor.predict_files(case.images)
    write_label(segmentation.label, image.geometry, output)


def check(output: Path, expected: np.ndarray, like: sitk.Image) -> None:
    """Compare a segmentation on disk with what it should be and where it should lie."""
    found = sitk.ReadImage(str(output))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), expected)
    assert found.GetSize() == like.GetSize()
    for there, here in (
        (like.GetSpacing(), found.GetSpacing()),
        (like.GetOrigin(), found.GetOrigin()),
        (like.GetDirection(), found.GetDirection()),
    ):
        assert there == pytest.approx(here, abs=1e-9)
    assert 0 < expected.sum() < expected.size, "the level does not divide this image"


# --- real files

READABLE = {
    "msd_hippocampus_unpaired/images/hippocampus_118.nii.gz": 60,
    "msd_hippocampus_unpaired/labels/hippocampus_010.nii.gz": 0.5,
    "msd_hippocampus_unpaired/labels/hippocampus_281.nii.gz": 0.5,
    "nibabel_monai/anatomical.nii": 5000,
    "nibabel_monai/anatomical_label.nii.gz": 0.5,
    "nibabel_monai/standard.nii.gz": 60,
    "pyradiomics/brain1_image.nrrd": 300,
    "pyradiomics/brain1_label.nrrd": 0.5,
    "sct_testing_data/t2.nii.gz": 200,
    "sct_testing_data/t2_seg-manual.nii.gz": 0.5,
    "sct_testing_data/t2s.nii.gz": 200,
    "sct_testing_data/t2s_seg.nii.gz": 0.5,
}
REFUSED = {
    "nibabel_monai/example4d.nii.gz": "example4d.*a 4D image .128 × 96 × 24 × 2.*Split",
    "sct_testing_data/mtr.nii.gz": r"mtr.*NaN or infinite. Replace them",
    "dicom_sunnybrook/mixed_phases_same_positions": "18 slices at only 9 positions",
}


def test_no_real_file_is_forgotten(real_data: Path) -> None:
    folder = real_data / "formats"
    files = {file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("LICENSE")}
    cases = {str((f.parent if f.suffix == ".dcm" else f).relative_to(folder)) for f in files}
    assert cases == {*READABLE, *REFUSED, "dicom_sunnybrook/ED_series"}


@pytest.mark.parametrize("name", READABLE)
def test_real_scans_are_segmented_on_their_own_grid(
    name: str, real_data: Path, make_plan: MakePlan, tmp_path: Path
) -> None:
    source = real_data / "formats" / name
    ending = "".join(source.suffixes)
    level = READABLE[name]
    segment(source, level, make_plan, tmp_path / f"out{ending}", ending)
    image = sitk.ReadImage(str(source))
    check(tmp_path / f"out{ending}", sitk.GetArrayFromImage(image).astype(np.float32) > level, image)


def test_a_real_dicom_series_is_segmented_as_its_nifti_twin(
    real_data: Path, make_plan: MakePlan, tmp_path: Path
) -> None:
    segment(real_data / "formats/dicom_sunnybrook/ED_series", 100, make_plan, tmp_path / "out.nii.gz", ".nii.gz")
    twin = sitk.ReadImage(str(real_data / "Dataset045_SunnybrookLV/imagesTr/SC-HF-I-1_ED_0000.nii.gz"))
    found = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(twin) > 100)
    assert found.GetOrigin() == pytest.approx(twin.GetOrigin(), abs=1e-3)
    assert found.GetDirection() == pytest.approx(twin.GetDirection(), abs=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_real_scans_that_cannot_be_segmented_say_why(
    name: str, real_data: Path, make_plan: MakePlan, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=REFUSED[name]) as raised:
        segment(real_data / "formats" / name, 0, make_plan, tmp_path / "out.nii.gz", ".nii.gz")
    assert Path(name).name in str(raised.value)
    assert not list(tmp_path.iterdir())


# --- the same kinds of file, made here

RAMP = np.arange(3 * 6 * 5).reshape(3, 6, 5)
MADE = {
    "sagittal, as stored in t2": ("x.nii.gz", np.int16, (0, 0, -1, 1, 0, 0, 0, 1, 0)),
    "determinant -1, as brain1": ("x.nrrd", np.int16, (1, 0, 0, 0, -1, 0, 0, 0, 1)),
    "oblique": ("x.mha", np.float32, (0.8, 0.6, 0, -0.6, 0.8, 0, 0, 0, 1)),
    "unsigned, uncompressed": ("x.nii", np.uint8, (-1, 0, 0, 0, -1, 0, 0, 0, 1)),
}


@pytest.mark.parametrize("kind", MADE)
def test_made_scans_are_segmented_on_their_own_grid(
    kind: str, make_plan: MakePlan, write_image: Callable[..., Path], tmp_path: Path
) -> None:
    name, dtype, direction = MADE[kind]
    place = {"origin": (-3.25, 100, 0.5), "direction": direction}
    source = write_image(tmp_path / name, RAMP.astype(dtype), (7.5, 0.5, 0.5), **place)
    ending = "".join(source.suffixes)
    segment(source, 40, make_plan, tmp_path / f"out{ending}", ending)
    check(tmp_path / f"out{ending}", RAMP > 40, sitk.ReadImage(str(source)))


def test_a_made_big_endian_scan_is_segmented(
    make_plan: MakePlan, write_image: Callable[..., Path], tmp_path: Path
) -> None:
    little = write_image(tmp_path / "little.nii", RAMP.astype(np.int16), (2, 3, 1)).read_bytes()
    big = bytearray(little)
    # Of the header's fields by width in bytes: sizeof_hdr; dim to bitpix; pixdim to slope and intercept; the sform.
    for start, stop, width in ((0, 4, 4), (40, 56, 2), (68, 76, 2), (76, 120, 4), (252, 256, 2), (256, 328, 4)):
        words = np.frombuffer(little[start:stop], f"u{width}")
        big[start:stop] = words.byteswap().tobytes()
    big[352:] = np.frombuffer(little[352:], "<i2").byteswap().tobytes()
    (tmp_path / "big.nii").write_bytes(big)
    segment(tmp_path / "big.nii", 40, make_plan, tmp_path / "out.nii", ".nii")
    check(tmp_path / "out.nii", RAMP > 40, sitk.ReadImage(str(tmp_path / "little.nii")))


def make_refused(kind: str, folder: Path, write_image: Callable[..., Path]) -> Path:
    if kind == "4D":
        volume = sitk.GetImageFromArray(RAMP.astype(np.int16))
        sitk.WriteImage(sitk.JoinSeries([volume, volume]), str(folder / "x.nii.gz"))
        return folder / "x.nii.gz"
    if kind == "infinite":
        return write_image(folder / "x.nii.gz", np.where(RAMP == 7, -np.inf, RAMP).astype(np.float32))
    if kind == "two phases":
        for number in range(6):
            slice_ = sitk.GetImageFromArray(np.full((1, 5, 6), number, np.int16))
            for tag, value in {
                "0020|000d": "1.2",
                "0020|000e": "1.2.3",
                "0020|0013": str(number),
                "0020|0032": f"0\\0\\{number // 2}",
            }.items():
                slice_.SetMetaData(tag, value)
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            (folder / "x").mkdir(exist_ok=True)
            writer.SetFileName(str(folder / "x" / f"{number}.dcm"))
            writer.Execute(slice_)
        return folder / "x"
    (folder / "x.gipl").write_bytes(b"something else")
    return folder / "x.gipl"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("4D", "a 4D image"),
        ("infinite", "1 of 90 voxels are NaN or infinite"),
        ("two phases", "6 slices at only 3 positions"),
        ("unknown", "not a supported format. Convert it to one of .nii.gz"),
    ],
)
def test_made_scans_that_cannot_be_segmented_say_why(
    kind: str, message: str, make_plan: MakePlan, write_image: Callable[..., Path], tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    source = make_refused(kind, tmp_path / "in", write_image)
    with pytest.raises(UserError, match=message):
        segment(source, 0, make_plan, tmp_path / "out.nii.gz", ".nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()
