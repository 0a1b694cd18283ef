"""Images stored in mixed orientations, and the keys and options on sides and mirroring, through the command line."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autocrossdim.data.geometry import same_place
from autocrossdim.data.images import read_image, read_label
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, paired_organs, write_dataset
from autocrossdim.records.plan import Plan

ORGANS = {"background": 0, "organ A": 1, "organ B": 2}
SMALL = ("--planner", "dx", "--patch-size", "16,16,16", "--batch-size", "2", "--no-trial", "--processes", "1")
SMALL += ("--encoder", "test_efficientnet", "--memory", "1")
SETTINGS = ("steps_per_epoch=10", "learning_rate=0.003", "slices_first=False", "validation_batches=1", "workers=0")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "Dataset902_Organs"
    write_dataset(folder, lambda random: paired_organs(random, (16, 20, 24)), ORGANS, ISOTROPIC_SPACING, 5, 1)
    return folder


@pytest.fixture
def planned(raw: Path, tmp_path: Path, succeed: Callable[..., str]) -> Callable[..., tuple[Plan, str]]:
    """Plan the dataset with further options; return the plan and what was printed, on one line."""

    def run(*options: str) -> tuple[Plan, str]:
        said = succeed("plan", raw, "--work", tmp_path / "work", *SMALL, "--overwrite", *options)
        return Plan.read(tmp_path / "work" / raw.name / "plan.json"), " ".join(said.split())

    return run


def turn(folder: Path, case: str, code: str) -> None:
    """Store image and label of a case in another orientation (x, y, z); the headers stay correct."""
    for file in folder.glob(f"*/{case}*.nii.gz"):
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(file)), code), str(file))


@pytest.mark.slow
def test_images_of_mixed_orientation_are_planned_trained_and_segmented_on_their_own_grids(
    raw: Path, tmp_path: Path, succeed: Callable[..., str]
) -> None:
    for case, code in (("case_01", "RAI"), ("case_03", "PIR")):
        turn(raw, case, code)
    (raw / "labelsTs" / "case_05.nii.gz").unlink()
    scan = raw / "imagesTs" / "case_05_0000.nii.gz"
    for code in ("RAI", "PIR"):
        scan.with_name(f"{code}_0000.nii.gz").write_bytes(scan.read_bytes())
        turn(raw, code, code)

    work, out = ("--work", tmp_path / "work"), tmp_path / "out"
    succeed("plan_and_preprocess", raw, *work, *SMALL)
    train = ["train", raw, *work, "--fold", "0", "--weights", "random", "--device", "cpu", "--epochs", "1"]
    succeed(*train, *(word for setting in SETTINGS for word in ("--set", setting)))
    said = succeed("predict", raw, *work, "-i", raw / "imagesTs", "-o", out, "--device", "cpu")
    assert "warning" not in said

    expected = sitk.ReadImage(str(out / "case_05.nii.gz"))
    assert len(np.unique(sitk.GetArrayFromImage(expected))) > 1, "nothing was segmented that could be misplaced"
    for name in ("case_05", "RAI", "PIR"):
        label, place = read_label(out / f"{name}.nii.gz")
        assert same_place(read_image([raw / "imagesTs" / f"{name}_0000.nii.gz"]).geometry, place) is None
        code = name if len(name) == 3 else "LPS"
        assert np.array_equal(label, sitk.GetArrayFromImage(sitk.DICOMOrient(expected, code))), name


@pytest.mark.slow
def test_sides_and_axes_to_mirror_in_dataset_json_reach_the_plan(
    raw: Path, edit_json: Callable[..., None], planned: Callable[..., tuple[Plan, str]]
) -> None:
    edit_json(raw, sides=[["organ A", "organ B"]])
    plan, said = planned()
    assert [axis_of(plan, axis) for axis in plan.configuration().mirrored] == ["z", "y"]
    reason = "The left-right axis is not mirrored, because labels differ by their side: organ A and organ B."
    assert reason in plan.notes
    assert reason in said
    edit_json(raw, mirror_axes=["left-right", "y"])
    plan, said = planned()
    assert [axis_of(plan, axis) for axis in plan.configuration().mirrored] == ["y", "x"]
    assert "Mirrored axes: left-right, front-back, as set in dataset.json (mirror_axes)." in said


@pytest.mark.slow
def test_with_keep_orientation_axes_have_anatomical_names_if_all_images_agree(
    raw: Path, edit_json: Callable[..., None], planned: Callable[..., tuple[Plan, str]]
) -> None:
    """In images stored sagittally, the left-right axis is z."""
    edit_json(raw, sides=[["organ A", "organ B"]])
    for case in range(5):
        turn(raw, f"case_{case:02d}", "PIR")
    plan, said = planned("--keep-orientation")
    assert plan.orientation is None
    assert [axis_of(plan, axis) for axis in plan.configuration().mirrored] == ["y", "x"]
    assert "The left-right axis is not mirrored, because labels differ by their side" in said
    turn(raw, "case_00", "LPS")
    plan, said = planned("--keep-orientation")
    assert "The x axis (taken to be left-right: the images share no known orientation) is not mirrored" in said
    assert "left-right axis" not in said


def axis_of(plan: Plan, axis: int) -> str:
    """Return the array axis of the planned orientation that is an axis of the plan."""
    return "zyx"[plan.transpose[axis]]
