"""CHAOS: DICOM slices and PNG files as the challenge publishes them, CT and both MR sequences."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

import autocrossdim
from autocrossdim.data.images import read_image, read_label
from autocrossdim.system.errors import UserError

CODES = {1: 63, 2: 126, 3: 189, 4: 252}
SPACING = (5.0, 1.5, 1.5)  # mm (z, y, x)
COUNT = 6


def organs() -> np.ndarray:
    """Liver and right kidney on the patient's right, where x is small; left kidney and spleen on the left."""
    label = np.zeros((COUNT, 24, 30), np.uint8)
    label[3:, 4:12, 2:14] = 1
    label[1:4, 15:20, 6:10], label[1:4, 15:20, 20:24] = 2, 3
    label[2:5, 6:12, 22:27] = 4
    return label


def intensities(label: np.ndarray, seed: int) -> np.ndarray:
    """Organs are uniform up to noise; what surrounds them is not."""
    noise = np.random.default_rng(seed).normal(0, 5, label.shape) * np.where(label == 0, 12, 1)
    return (np.array([20, 200, 300, 310, 400])[label] + noise).astype(np.int16)


def write_slices(folder: Path, array: np.ndarray, names: list[str], *, downwards: bool = False) -> None:
    """Write slices of ascending position under `names`, or under the names in reverse.

    Each file declares a series of its own, as if it had been anonymised alone.
    """
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z, name in enumerate(names[::-1] if downwards else names):
        image = sitk.GetImageFromArray(array[z : z + 1])
        image.SetSpacing((SPACING[2], SPACING[1], SPACING[0]))
        tags = {
            "0020|000d": "1.2",
            "0020|000e": f"1.2.{1 + names.index(name)}",
            "0020|0013": str(1 + names.index(name)),
            "0020|0032": f"-20\\-15\\{-30 + SPACING[0] * z}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / name))
        writer.Execute(image)


def write_ground(folder: Path, label: np.ndarray, names: list[str], codes: dict[int, int], *, downwards: bool) -> None:
    folder.mkdir(parents=True)
    table = np.zeros(256, np.uint8)
    table[list(codes)] = list(codes.values())
    for plane, name in zip(label, names[::-1] if downwards else names, strict=True):
        Image.fromarray(table[plane]).save(folder / name)


def write_ct(root: Path, number: int, *, ground: bool = True, downwards: bool = True, reversed_ground: bool = False):
    patient = root / "CT" / str(number)
    liver = (organs() == 1).astype(np.uint8)
    names = [f"i{z:04d},0000b.dcm" for z in range(COUNT)]
    write_slices(patient / "DICOM_anon", intensities(organs(), number) - 100, names, downwards=downwards)
    if ground:
        pictures = [f"liver_GT_{z:03d}.png" for z in range(COUNT)]
        write_ground(patient / "Ground", liver, pictures, {1: 255}, downwards=downwards is not reversed_ground)


def write_mr(root: Path, number: int, *, downwards: bool = False, codes: dict[int, int] = CODES) -> None:
    """Write T1-DUAL, whose in-phase slices have even numbers and out-of-phase slices odd ones, and T2-SPIR."""
    patient = root / "MR" / str(number)
    label = organs()
    even = [f"IMG-0004-{2 * z:05d}" for z in range(1, COUNT + 1)]
    odd = [f"IMG-0004-{2 * z - 1:05d}" for z in range(1, COUNT + 1)]
    every = [f"IMG-0002-{z:05d}" for z in range(1, COUNT + 1)]
    for folder, stems, seed in (
        ("T1DUAL/DICOM_anon/InPhase", even, 1),
        ("T1DUAL/DICOM_anon/OutPhase", odd, 2),
        ("T2SPIR/DICOM_anon", every, 3),
    ):
        names = [f"{stem}.dcm" for stem in stems]
        write_slices(patient / folder, intensities(label, 10 * number + seed), names, downwards=downwards)
    for sequence, stems in (("T1DUAL", even), ("T2SPIR", every)):
        pictures = [f"{stem}.png" for stem in stems]
        write_ground(patient / sequence / "Ground", label, pictures, codes, downwards=downwards)


@pytest.fixture
def train_sets(tmp_path: Path) -> Path:
    root = tmp_path / "CHAOS_Train_Sets" / "Train_Sets"
    for number in (1, 2, 5, 14, 30):
        write_ct(root, number, downwards=number != 2)
        write_mr(root, number, downwards=number == 5)
    return root.parent


@pytest.mark.parametrize(("modality", "channels"), [("t1", ["T1 in phase", "T1 out of phase"]), ("t2", ["T2"])])
def test_mr_has_four_organs(train_sets: Path, convert, modality: str, channels: list[str]) -> None:
    dataset, content = convert(train_sets, modality=modality)
    assert list(content["channel_names"].values()) == channels
    assert content["labels"] == {"background": 0, "liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
    for number in (1, 5):
        label, geometry = read_label(dataset / "labelsTr" / f"{modality}_{number:02d}.nii.gz")
        np.testing.assert_array_equal(label, organs())
        assert geometry.spacing == pytest.approx(SPACING)
        assert geometry.origin == pytest.approx((-20, -15, -30))
        assert geometry.orientation == "SPL"
        files = [
            dataset / "imagesTr" / f"{modality}_{number:02d}_{channel:04d}.nii.gz" for channel in range(len(channels))
        ]
        seeds = [1, 2] if modality == "t1" else [3]
        for channel, seed in zip(read_image(files).array, seeds, strict=True):
            np.testing.assert_array_equal(channel, intensities(organs(), 10 * number + seed))


def test_ct_is_matched_by_the_order_of_names_in_either_direction(train_sets: Path, convert) -> None:
    test_sets = train_sets.parent / "CHAOS_Test_Sets" / "Test_Sets"
    write_ct(test_sets, 3, ground=False)
    dataset, content = convert(train_sets.parent, modality="ct", output="../converted")
    assert content["labels"] == {"background": 0, "liver": 1}
    for number in (1, 2):
        label, _ = read_label(dataset / "labelsTr" / f"ct_{number:02d}.nii.gz")
        np.testing.assert_array_equal(label, organs() == 1)
    assert (dataset / "imagesTs" / "ct_03_0000.nii.gz").is_file()


def test_a_ground_truth_in_reverse_order_is_reported(tmp_path: Path) -> None:
    for number in range(1, 4):
        write_ct(tmp_path / "Train_Sets", number, reversed_ground=number == 2)
    converted = autocrossdim.convert(tmp_path / "Train_Sets", tmp_path / "out", processes=1)
    (warning,) = converted.warnings
    assert warning.startswith("ct_02: the ground truth fits the image better with its slices in reverse order")


def test_interchanged_kidneys_are_a_fault(tmp_path: Path) -> None:
    write_mr(tmp_path / "Train_Sets", 1)
    write_mr(tmp_path / "Train_Sets", 2, codes={**CODES, 2: CODES[3], 3: CODES[2]})
    with pytest.raises(UserError) as error:
        autocrossdim.convert(tmp_path / "Train_Sets", tmp_path / "out", modality="t2", processes=1)
    assert "1 problem found" in str(error.value)
    assert "t2_02: the right kidney's centre is 21 mm to the left of the left kidney's" in str(error.value)


def test_names_that_do_not_follow_positions_are_a_fault(tmp_path: Path) -> None:
    write_ct(tmp_path / "Train_Sets", 1)
    slices = tmp_path / "Train_Sets" / "CT" / "1" / "DICOM_anon"
    (slices / "i0001,0000b.dcm").rename(slices / "x")
    (slices / "i0003,0000b.dcm").rename(slices / "i0001,0000b.dcm")
    (slices / "x").rename(slices / "i0003,0000b.dcm")
    with pytest.raises(UserError, match="the names of the slices do not follow their positions"):
        autocrossdim.convert(tmp_path / "Train_Sets", tmp_path / "out", processes=1)


def test_a_missing_png_file_and_unknown_codes_are_faults(tmp_path: Path) -> None:
    write_ct(tmp_path / "Train_Sets", 1)
    write_ct(tmp_path / "Train_Sets", 2)
    (tmp_path / "Train_Sets" / "CT" / "1" / "Ground" / "liver_GT_003.png").unlink()
    strange = tmp_path / "Train_Sets" / "CT" / "2" / "Ground" / "liver_GT_003.png"
    Image.fromarray(np.full((24, 30), 63, np.uint8)).save(strange)
    with pytest.raises(UserError) as error:
        autocrossdim.convert(tmp_path / "Train_Sets", tmp_path / "out", processes=1)
    assert "Ground: 5 PNG files for 6 slices" in str(error.value)
    assert "liver_GT_003.png: contains 63, but only 0 and 128 to 255 are expected" in str(error.value)


def test_verify_suggests_a_command_with_a_modality(train_sets: Path, tmp_path: Path) -> None:
    (fault,) = autocrossdim.verify(train_sets, processes=1).faults
    suggested, others = re.fullmatch(r".*Convert it: autocrossdim convert (.*) \((.*)\)", fault, re.DOTALL).groups()
    assert suggested == f"{train_sets} -o Dataset001_CHAOSTrainSets --layout chaos --modality ct"
    assert others == "or t1 or t2; each is a dataset of its own"
    write_ct(tmp_path / "ct" / "Train_Sets", 1)
    (fault,) = autocrossdim.verify(tmp_path / "ct", processes=1).faults
    assert fault.endswith("--layout chaos")


def test_the_modality_has_to_be_chosen(train_sets: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="choose one, because each is a dataset of its own: ct, t1, t2"):
        autocrossdim.convert(train_sets, tmp_path / "out", processes=1)
    with pytest.raises(UserError, match="--modality t3: no such modality"):
        autocrossdim.convert(train_sets, tmp_path / "out", modality="t3", processes=1)
    with pytest.raises(UserError, match="1: contains no scans of CHAOS, such as"):
        autocrossdim.convert(train_sets / "Train_Sets" / "MR" / "1", tmp_path / "out", layout="chaos", processes=1)


def test_a_patient_is_not_passed_over_because_a_channel_is_missing(tmp_path: Path) -> None:
    for number in (1, 2):
        write_mr(tmp_path / "Train_Sets", number)
    shutil.rmtree(tmp_path / "Train_Sets" / "MR" / "2" / "T1DUAL" / "DICOM_anon" / "InPhase")
    with pytest.raises(UserError, match=r"MR/2/T1DUAL/DICOM_anon/InPhase: no such directory"):
        autocrossdim.convert(tmp_path / "Train_Sets", tmp_path / "out", modality="t1", processes=1)
