"""BraTS in the namings of 2020, 2021 and 2023."""

from pathlib import Path

import numpy as np
import pytest

import autocrossdim
from autocrossdim.data.images import read_image, read_label
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError

OLDER = ("t1", "t1ce", "t2", "flair")
NEWER = ("t1n", "t1c", "t2w", "t2f")
DIRECTION = (-1, 0, 0, 0, -1, 0, 0, 0, 1)


def phantom(enhancing: int) -> np.ndarray:
    label = np.zeros((6, 8, 7), np.uint8)
    label[1:5, 1:7, 1:6], label[2:4, 2:6, 2:5], label[2:4, 3:5, 3:4] = 2, enhancing, 1
    return label


@pytest.fixture
def write_scan(write_image):
    def write(folder: Path, *, newer: bool = False, ending: str = ".nii.gz", labelled: bool = True) -> None:
        place = {"origin": (0, -239, 0), "direction": DIRECTION}
        joint = "-" if newer else "_"
        for number, suffix in enumerate(NEWER if newer else OLDER):
            array = np.random.default_rng(number).integers(0, 900, (6, 8, 7)).astype(np.int16)
            array[0, 0, 0] = 100 + number
            write_image(folder / f"{folder.name}{joint}{suffix}{ending}", array, **place)
        if labelled:
            write_image(folder / f"{folder.name}{joint}seg{ending}", phantom(3 if newer else 4), **place)

    return write


@pytest.mark.parametrize(("name", "ending"), [("BraTS20_Training_{:03d}", ".nii"), ("BraTS2021_{:05d}", ".nii.gz")])
def test_until_2021_enhancing_tumour_is_4_and_becomes_3(tmp_path: Path, convert, write_scan, name: str, ending: str):
    source = tmp_path / "training"
    for number in range(5):
        write_scan(source / name.format(number), ending=ending)
    write_scan(source / name.format(9), ending=ending, labelled=False)
    dataset, content = convert(source)
    assert content["channel_names"] == {"0": "T1", "1": "T1ce", "2": "T2", "3": "FLAIR"}
    files = [dataset / "imagesTr" / f"{name.format(3)}_{channel:04d}.nii.gz" for channel in range(4)]
    assert read_image(files).array[:, 0, 0, 0].tolist() == [100, 101, 102, 103]
    label, geometry = read_label(dataset / "labelsTr" / f"{name.format(3)}.nii.gz")
    np.testing.assert_array_equal(label, phantom(3))
    assert geometry.origin == (0, -239, 0)
    assert (dataset / "imagesTs" / f"{name.format(9)}_0003.nii.gz").is_file()

    labels = Labels.from_dataset_json(content["labels"], content["regions_class_order"])
    whole, core, enhancing = labels.to_regions(label)
    assert whole.sum() > core.sum() > enhancing.sum() > 0
    np.testing.assert_array_equal(labels.from_regions(np.stack([whole, core, enhancing]) > 0), label)


def test_since_2023_scans_of_a_patient_are_one_group(tmp_path: Path, convert, write_scan) -> None:
    for patient, time in [(2, 0), (2, 1), (5, 0), (6, 0), (7, 0), (8, 0)]:
        write_scan(tmp_path / "gli" / f"BraTS-GLI-{patient:05d}-{time:03d}", newer=True)
    dataset, content = convert(tmp_path / "gli", layout="brats")
    assert content["groups"]["BraTS-GLI-00002-001"] == content["groups"]["BraTS-GLI-00002-000"] == "BraTS-GLI-00002"
    name = "BraTS-GLI-00002-001"
    source = tmp_path / "gli" / name / f"{name}-seg.nii.gz"
    assert (dataset / "labelsTr" / f"{name}.nii.gz").read_bytes() == source.read_bytes()


def test_a_missing_channel_and_a_misnamed_segmentation_are_faults(tmp_path: Path, write_scan) -> None:
    for number in (354, 355, 356):
        write_scan(tmp_path / "training" / f"BraTS20_Training_{number}", ending=".nii")
    (tmp_path / "training" / "BraTS20_Training_354" / "BraTS20_Training_354_t2.nii").unlink()
    folder = tmp_path / "training" / "BraTS20_Training_355"
    (folder / "BraTS20_Training_355_seg.nii").rename(folder / "W39_1998.09.19_Segm.nii")
    with pytest.raises(UserError) as error:
        autocrossdim.convert(tmp_path / "training", tmp_path / "out", processes=1)
    assert "BraTS20_Training_354: lacks BraTS20_Training_354_t2.nii.gz" in str(error.value)
    assert "BraTS20_Training_355_seg.nii.gz (is it W39_1998.09.19_Segm.nii?" in str(error.value)


def test_a_scan_is_not_passed_over_because_a_channel_is_missing(tmp_path: Path, write_scan) -> None:
    for number in (1, 2):
        write_scan(tmp_path / "training" / f"BraTS2021_{number:05d}")
    (tmp_path / "training" / "BraTS2021_00002" / "BraTS2021_00002_flair.nii.gz").unlink()
    with pytest.raises(UserError, match=r"BraTS2021_00002: lacks BraTS2021_00002_flair\.nii\.gz"):
        autocrossdim.convert(tmp_path / "training", tmp_path / "out", processes=1)
