import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autocrossdim.api import plan_and_preprocess
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset
from autocrossdim.inference.inputs import find_inputs
from autocrossdim.models.source import open_model
from autocrossdim.records.plan import PlanOptions
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


def test_a_dicom_folder_is_a_case_and_so_is_each_in_a_folder_of_them(tmp_path: Path) -> None:
    anna, bert = write_dicom(tmp_path / "scans" / "anna"), write_dicom(tmp_path / "scans" / "bert")
    assert [case.images for case in find_inputs(anna, 1, ".nii.gz")] == [(anna,)]
    cases = find_inputs(tmp_path / "scans", 1, ".nii.gz")
    assert [(case.name, case.images) for case in cases] == [("anna", (anna,)), ("bert", (bert,))]


def test_a_folder_without_images_is_told_what_files_must_be_called(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"holds no case. Name the images CASE_0000\.nii\.gz"):
        find_inputs(tmp_path, 1, ".nii.gz")


def test_a_model_is_named_by_number_and_a_single_fold_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw" / "Dataset901_Nodules"
    write_dataset(raw, lambda r: nodules(r, (20, 28, 24)), {"background": 0, "a": 1, "b": 2}, ISOTROPIC_SPACING, 2, 0)
    work = tmp_path / "work"
    plan_and_preprocess(raw, work, options=PlanOptions(memory=1), processes=1)
    fold = work / raw.name / "models" / "dx" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_latest").touch()
    assert open_model("901", work=work).selection() == {"dx": [fold / "checkpoint_latest"]}
    with pytest.raises(UserError, match=r"fold_0: a single fold\. Give .*dx and select the fold with --fold"):
        open_model(fold, work=work).selection()
    (work / raw.name / "best.json").write_text(json.dumps(["dx"]))
    with pytest.raises(UserError, match=r"best\.json: damaged"):
        open_model("901", work=work).selection()
