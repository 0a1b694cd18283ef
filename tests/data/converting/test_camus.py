"""CAMUS in both of its published layouts."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import autocrossdim
from autocrossdim.data.images import read_image, read_label
from autocrossdim.system.errors import UserError

INFO = "ED: 1\nES: 18\nNbFrame: 18\nSex: F\nAge: 56\nImageQuality: Good\nEF: 56\nFrameRate: 47.8\n"


def frame(number: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(number)
    label = np.zeros((20, 16), np.uint8)
    label[3:12, 4:12], label[4:11, 5:11], label[12:16, 5:11] = 2, 1, 3
    return random.integers(0, 255, label.shape).astype(np.uint8), label


def write_patient(folder: Path, number: int, ending: str, *, labelled: bool = True) -> None:
    """Write both views at both phases, the sequence between them, and Info_2CH.cfg and Info_4CH.cfg."""
    patient = folder / f"patient{number:04d}"
    patient.mkdir(parents=True)
    for index, view in enumerate(("2CH", "4CH")):
        (patient / f"Info_{view}.cfg").write_text(INFO)
        for phase in ("ED", "ES"):
            for suffix, array in zip(("", "_gt"), frame(10 * number + index + (phase == "ES")), strict=True):
                if suffix and not labelled:
                    continue
                # The older files are volumes of one slice with pixels that are not square.
                image = sitk.GetImageFromArray(array[None] if ending == ".mhd" else array)
                image.SetSpacing((0.308, 0.154, 1.0) if ending == ".mhd" else (0.308, 0.308))
                sitk.WriteImage(image, str(patient / f"{patient.name}_{view}_{phase}{suffix}{ending}"))
        sequence = "half_sequence.nii.gz" if ending == ".nii.gz" else "sequence.mhd"
        sitk.WriteImage(
            sitk.GetImageFromArray(np.stack([array] * 3)), str(patient / f"{patient.name}_{view}_{sequence}")
        )


def write_lists(folder: Path, name: str, **parts: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, numbers in parts.items():
        text = "\n".join(f"patient{number:04d}" for number in numbers)
        (folder / f"{name}_{part}.txt").write_text(text + "\n")


@pytest.fixture
def present(tmp_path: Path) -> Path:
    root = tmp_path / "CAMUS_public"
    for number in range(1, 6):
        write_patient(root / "database_nifti", number, ".nii.gz")
    write_lists(root / "database_split", "subgroup", training=[1, 2, 3], validation=[4], testing=[5])
    return root


@pytest.fixture
def older(tmp_path: Path) -> Path:
    root = tmp_path / "camus"
    for number in range(1, 4):
        write_patient(root / "training", number, ".mhd")
    write_patient(root / "testing", 451, ".mhd", labelled=False)
    for fold, (train, val, test) in enumerate([(1, 2, 3), (2, 3, 1), (3, 1, 2)], start=1):
        write_lists(root / "listSubGroups", f"subGroup{fold}", training=[train], validation=[val], testing=[test])
    return root


def test_the_present_layout_keeps_its_division_of_patients(present: Path, convert) -> None:
    dataset, content = convert(present)
    assert content["numTraining"] == 16
    assert content["groups"]["patient0003_4CH_ES"] == "patient0003"
    assert content["groups"]["patient0005_2CH_ED"] == "patient0005"  # of the test, whose intervals are over patients
    assert not any("do not exist" in warning for warning in autocrossdim.verify(dataset, processes=1).warnings)
    assert content["labels"] == {"background": 0, "LV endocardium": 1, "LV myocardium": 2, "left atrium": 3}
    (fold,) = json.loads((dataset / "splits_final.json").read_text(encoding="utf-8"))
    assert fold["val"] == [f"patient0004_{view}_{phase}" for view in ("2CH", "4CH") for phase in ("ED", "ES")]
    assert len(fold["train"]) == 12
    assert sorted(file.name for file in (dataset / "labelsTs").iterdir()) == [
        f"patient0005_{view}_{phase}.nii.gz" for view in ("2CH", "4CH") for phase in ("ED", "ES")
    ]
    source = present / "database_nifti" / "patient0001" / "patient0001_2CH_ED.nii.gz"
    assert (dataset / "imagesTr" / "patient0001_2CH_ED_0000.nii.gz").read_bytes() == source.read_bytes()
    assert read_image([dataset / "imagesTr" / "patient0001_2CH_ED_0000.nii.gz"]).geometry.dims == 2
    record = json.loads((dataset / "sources" / "patient0001_2CH_ED.json").read_text(encoding="utf-8"))
    assert record["facts"]["ImageQuality"] == "Good"
    assert next(file["path"] for file in record["files"]) == str(source)


def test_the_older_layout_becomes_2d_with_its_divisions_as_folds(older: Path, convert) -> None:
    dataset, content = convert(older)
    assert content["numTraining"] == 12
    folds = json.loads((dataset / "splits_final.json").read_text(encoding="utf-8"))
    assert [fold["val"][0] for fold in folds] == [f"patient{number:04d}_2CH_ED" for number in (3, 1, 2)]
    assert all(len(fold["train"]) == 8 for fold in folds)
    assert len(list((dataset / "imagesTs").iterdir())) == 4
    image = read_image([dataset / "imagesTr" / "patient0002_4CH_ES_0000.nii.gz"])
    label, geometry = read_label(dataset / "labelsTr" / "patient0002_4CH_ES.nii.gz")
    assert image.geometry.dims == geometry.dims == 2
    assert image.geometry.spacing == pytest.approx((1.0, 0.154, 0.308))
    expected = frame(22)
    np.testing.assert_array_equal(image.array[0, 0], expected[0])
    np.testing.assert_array_equal(label[0], expected[1])


def test_missing_annotations_and_unlisted_patients_are_faults(present: Path, tmp_path: Path) -> None:
    write_patient(present / "database_nifti", 6, ".nii.gz")
    (present / "database_nifti" / "patient0002" / "patient0002_4CH_ED_gt.nii.gz").unlink()
    with pytest.raises(UserError) as error:
        autocrossdim.convert(present, tmp_path / "out", processes=1)
    assert "patient0002_4CH_ED_gt.nii.gz: no such file" in str(error.value)
    assert "its lists do not name patient0006" in str(error.value)


def test_truncated_voxels_are_found(older: Path, tmp_path: Path) -> None:
    (older / "training" / "patient0001" / "patient0001_2CH_ED.raw").write_bytes(b"few")
    with pytest.raises(UserError, match=r"patient0001_2CH_ED\.raw: truncated"):
        autocrossdim.convert(older, tmp_path / "out", processes=1)
