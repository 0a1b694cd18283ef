from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from autocrossdim.data.images import read_image
from autocrossdim.inference.inputs import existing_files, find_inputs, unclear_orientation
from autocrossdim.system.errors import UserError


def write_dicom(folder: Path, slices: int = 3) -> Path:
    """Write a small DICOM series."""
    folder.mkdir(parents=True)
    for z in range(slices):
        image = sitk.GetImageFromArray(np.full((1, 4, 5), z, np.int16))
        image.SetOrigin((0, 0, 2.0 * z))
        image.SetSpacing((1, 1, 2))
        for key, value in {
            "0020|000e": "1.2.3.4",
            "0020|000d": "1.2.3",
            "0020|0013": str(z),
            "0020|0032": f"0\\0\\{2 * z}",
        }.items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{z}.dcm"))
        writer.Execute(image)
    return folder


def test_a_dicom_directory_is_a_case_and_so_is_each_in_a_directory_of_them(tmp_path: Path) -> None:
    anna, bert = write_dicom(tmp_path / "scans" / "anna"), write_dicom(tmp_path / "scans" / "bert")
    assert [case.images for case in find_inputs(anna, 1, ".nii.gz")] == [(anna,)]
    cases = find_inputs(tmp_path / "scans", 1, ".nii.gz")
    assert [(case.name, case.images) for case in cases] == [("anna", (anna,)), ("bert", (bert,))]


def test_a_directory_without_images_is_an_error_that_says_how_to_name_them(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"contains no case. Name the images CASE_0000\.nii\.gz"):
        find_inputs(tmp_path, 1, ".nii.gz")


def test_a_single_file_brings_its_other_channels(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    paths = [write_image(tmp_path / f"a_000{c}.nii.gz", np.zeros((3, 4, 5), np.float32)) for c in (0, 1)]
    (case,) = find_inputs(paths[0], 2, ".nii.gz")
    assert (case.name, case.images) == ("a", tuple(paths))
    (case,) = find_inputs(paths[0], 1, ".nii.gz")
    assert (case.name, case.images) == ("a", (paths[0],))


def test_a_missing_channel_is_named(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a_0000.nii.gz", np.zeros((3, 4, 5), np.float32))
    with pytest.raises(UserError, match=r"a_0001\.nii\.gz: no such file, but case 'a' needs 2 channels"):
        find_inputs(tmp_path, 2, ".nii.gz")


def test_a_case_without_a_channel_is_found_for_models_that_accept_it(
    tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    second = write_image(tmp_path / "a_0001.nii.gz", np.zeros((3, 4, 5), np.float32))
    for source in (tmp_path, second):
        (case,) = find_inputs(source, 2, ".nii.gz", incomplete=True)
        assert (case.name, case.images) == ("a", (tmp_path / "a_0000.nii.gz", second))
        assert existing_files(case) == (None, second)
    with pytest.raises(UserError, match=r"a_0000\.nii\.gz: no such file.*channel_dropout"):
        find_inputs(tmp_path, 2, ".nii.gz")


@pytest.mark.parametrize(
    ("ending", "plan", "message"),
    [
        (".nii.gz", {"orientation": "SPL"}, None),
        (".tif", {"orientation": "SPL"}, "the file does not state its orientation"),
        (".nii.gz", {"orientation": None}, "the training images did not state theirs, so the axes are used as stored"),
        (".nii.gz", {"orientation": None, "overrides": {"keep_orientation": "True"}}, None),
        (".tif", {"orientation": None}, None),
    ],
)
def test_it_is_said_if_image_and_training_data_cannot_be_brought_to_one_orientation(
    tmp_path: Path,
    write_image: Callable[..., Path],
    make_plan: Callable[..., Any],
    ending: str,
    plan: dict[str, Any],
    message: str | None,
) -> None:
    geometry = read_image([write_image(tmp_path / f"a{ending}", np.zeros((3, 4, 5), np.uint8))]).geometry
    warning = unclear_orientation(geometry, make_plan(**plan))
    assert warning is None if message is None else message in (warning or "")
