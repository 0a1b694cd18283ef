"""The Medical Segmentation Decathlon, with the names and the dataset.json of its tasks."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import autocrossdim
from autocrossdim.data.images import read_image
from autocrossdim.system.errors import UserError

DIRECTION = (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0)


def write_task(folder: Path, *, channels: int = 2, cases: int = 5) -> Path:
    """Write a task as Task05_Prostate: 4D images, modality, ./imagesTr/..., and the hidden files of its archive."""
    names = [f"prostate_{number:02d}" for number in range(cases)]
    for number, name in enumerate([*names, "prostate_90"]):
        part = "Ts" if name == "prostate_90" else "Tr"
        random = np.random.default_rng(number)
        volumes = random.integers(0, 900, (channels, 4, 8, 6)).astype(np.float32)
        label = np.zeros((4, 8, 6), np.uint8)
        label[1:3, 2:5, 2:4], label[2, 5:7] = 1, 2
        place = {"spacing": (0.6, 0.6, 4.0), "origin": (-10.0 - number, 5.5, 3.25), "direction": DIRECTION}
        image = sitk.JoinSeries([as_image(volume, **place) for volume in volumes])
        write(image if channels > 1 else as_image(volumes[0], **place), folder / f"images{part}" / f"{name}.nii.gz")
        if part == "Tr":
            write(as_image(label, **place), folder / "labelsTr" / f"{name}.nii.gz")
    (folder / "imagesTr" / "._prostate_00.nii.gz").write_bytes(b"of the archive")
    content = {
        "name": "PROSTATE",
        "description": "Prostate transitional zone and peripheral zone segmentation",
        "reference": "Radboud University, Nijmegen Medical Centre",
        "licence": "CC-BY-SA 4.0",
        "relase": "1.0 04/05/2018",
        "tensorImageSize": "4D",
        "modality": {str(number): name for number, name in enumerate(["T2", "ADC"][:channels])},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "numTraining": cases,
        "numTest": 1,
        "training": [{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names],
        "test": ["./imagesTs/prostate_90.nii.gz"],
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def as_image(array: np.ndarray, **place: tuple[float, ...]) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(place["spacing"])
    image.SetOrigin(place["origin"])
    image.SetDirection(place["direction"])
    return image


def write(image: sitk.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def test_the_volumes_of_4d_images_become_channels(tmp_path: Path, convert) -> None:
    source = write_task(tmp_path / "Task05_Prostate")
    dataset, content = convert(source)
    assert content["channel_names"] == {"0": "T2", "1": "ADC"}
    assert content["labels"] == {"background": 0, "PZ": 1, "TZ": 2}
    assert content["licence"] == "CC-BY-SA 4.0"
    assert (dataset / "imagesTs" / "prostate_90_0001.nii.gz").is_file()
    stored = sitk.ReadImage(str(source / "imagesTr" / "prostate_03.nii.gz"))
    image = read_image([dataset / "imagesTr" / f"prostate_03_{number:04d}.nii.gz" for number in range(2)])
    np.testing.assert_array_equal(image.array, sitk.GetArrayFromImage(stored))
    assert image.geometry.spacing == pytest.approx((4.0, 0.6, 0.6))
    assert image.geometry.origin == pytest.approx((-13.0, 5.5, 3.25))
    assert image.geometry.direction == pytest.approx(DIRECTION)


def test_files_that_need_no_change_are_copied(tmp_path: Path, convert) -> None:
    source = write_task(tmp_path / "Task04_One", channels=1)
    dataset, _ = convert(source, layout="msd")
    for new, old in {
        "imagesTr/prostate_01_0000": "imagesTr/prostate_01",
        "labelsTr/prostate_01": "labelsTr/prostate_01",
    }.items():
        assert (dataset / f"{new}.nii.gz").read_bytes() == (source / f"{old}.nii.gz").read_bytes()


def test_every_fault_is_listed_and_nothing_is_written(tmp_path: Path) -> None:
    source = write_task(tmp_path / "Task05_Prostate")
    (source / "labelsTr" / "prostate_00.nii.gz").unlink()
    (source / "imagesTr" / "prostate_01.nii.gz").write_bytes(
        (source / "imagesTr" / "prostate_01.nii.gz").read_bytes()[:300]
    )
    (source / "imagesTr" / "prostate_02.nii.gz").unlink()
    strange = np.full((4, 8, 6), 7, np.uint8)
    label = sitk.ReadImage(str(source / "labelsTr" / "prostate_03.nii.gz"))
    new = sitk.GetImageFromArray(strange)
    new.CopyInformation(label)
    write(new, source / "labelsTr" / "prostate_03.nii.gz")
    with pytest.raises(UserError) as error:
        autocrossdim.convert(source, tmp_path / "out", processes=1)
    message = str(error.value)
    assert "prostate_00.nii.gz: no such file, but case 'prostate_00' needs its label" in message
    assert "prostate_01.nii.gz: truncated" in message
    assert "prostate_02.nii.gz: no such file, but dataset.json lists it" in message
    assert "prostate_03.nii.gz: contains the value 7" in message
    assert not (tmp_path / "out").exists()


def test_verify_suggests_the_command(tmp_path: Path) -> None:
    source = write_task(tmp_path / "Task05_Prostate", cases=1)
    (fault,) = autocrossdim.verify(source, processes=1).faults
    assert f"autocrossdim convert {source} -o Dataset001_Task05Prostate --layout msd" in fault


def test_a_dataset_of_nnunets_first_version_is_not_taken_for_a_task(make_dataset, edit_json) -> None:
    dataset = make_dataset()
    entry = {"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz"}
    edit_json(dataset, training=[entry], numTraining=99)
    (fault,) = autocrossdim.verify(dataset, processes=1).faults
    assert "numTraining is 99" in fault


def test_numbers_of_labels_may_have_leading_zeros(tmp_path: Path, convert, edit_json) -> None:
    source = write_task(tmp_path / "Task05_Prostate")
    edit_json(source, labels={"00": "background", "01": "PZ", "02": "TZ"})
    assert convert(source)[1]["labels"] == {"background": 0, "PZ": 1, "TZ": 2}
