import gzip
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

import autocrossdim
from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.structure import check_structure
from autocrossdim.data.verify import Report, check_case, summarise, verify


def change(path: Path, **changes: Any) -> None:
    """Rewrite an image file, with its `first` voxels, or all, or parts of its geometry changed."""
    image = sitk.ReadImage(str(path))
    array = sitk.GetArrayFromImage(image)
    if "first" in changes:
        array.flat[: len(changes["first"])] = changes["first"]
    array = changes.get("array", array)
    new = sitk.GetImageFromArray(array)
    new.SetSpacing(changes.get("spacing", image.GetSpacing()))
    new.SetOrigin(changes.get("origin", image.GetOrigin()))
    new.SetDirection(changes.get("direction", image.GetDirection()))
    sitk.WriteImage(new, str(path))


def change_bytes(path: Path, start: int, new: bytes) -> None:
    """Overwrite bytes inside a `.gz` file."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[start : start + len(new)] = new
    path.write_bytes(gzip.compress(content))


def test_a_good_dataset_has_no_fault(make_dataset):
    report = verify(make_dataset(channels=2, test_cases=["t"]))
    assert report.faults == []
    assert report.warnings == []


def test_real_datasets_have_no_fault(real_data: Path):
    for name in ("Dataset004_Hippocampus", "Dataset045_SunnybrookLV", "Dataset046_SunnybrookSlices"):
        report = verify(real_data / name)
        assert report.faults == []
    assert "only 3 groups" in verify(real_data / "Dataset045_SunnybrookLV").warnings[0]


IMAGE, LABEL = "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"
TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing channel": (lambda d: (d / "imagesTr/a_0001.nii.gz").unlink(), "a_0001.nii.gz: no such file"),
    "missing first channel": (lambda d: (d / IMAGE).unlink(), "a_0000.nii.gz: no such file"),
    "missing label": (lambda d: (d / LABEL).unlink(), "a.nii.gz: no such file, but every training case needs a label"),
    "missing test channel": (
        lambda d: (d / "imagesTs/t_0001.nii.gz").unlink(),
        "t_0001.nii.gz: no such file",
    ),
    "channel too many": (
        lambda d: shutil.copy(d / IMAGE, d / "imagesTr/a_0002.nii.gz"),
        "a_0002.nii.gz: channel 2, but dataset.json names 2",
    ),
    "copies of a training case without its label": (
        lambda d: [
            shutil.copytree(d / "imagesTr", d / "imagesUn"),
            *(f.unlink() for f in (d / "imagesUn").iterdir() if f.name[0] != "a"),
            *(f.rename(f.with_name(f"u{f.name[1:]}")) for f in sorted((d / "imagesUn").iterdir())),
        ],
        "imagesUn: u has the same image as the training case a. Remove the copy from imagesUn.",
    ),
    "no channel number": (
        lambda d: shutil.copy(d / IMAGE, d / "imagesTr/a.nii.gz"),
        "imagesTr/a.nii.gz: the name lacks a channel number",
    ),
    "shape": (
        lambda d: change(d / LABEL, array=np.zeros((8, 12, 11), np.uint8)),
        "the label's geometry differs from the image's: shape",
    ),
    "spacing": (
        lambda d: change(d / LABEL, spacing=(1, 1, 2.1)),
        "the label's geometry differs from the image's: spacing",
    ),
    "origin": (
        lambda d: change(d / LABEL, origin=(10, -20, 5.1)),
        "the label's geometry differs from the image's: origin",
    ),
    "direction": (
        lambda d: change(d / LABEL, direction=UPRIGHT),
        "the label's geometry differs from the image's: direction",
    ),
    "orientation": (lambda d: change(d / LABEL, direction=TURNED), "the label is stored as S"),
    "channels apart": (lambda d: change(d / IMAGE, spacing=(1, 1, 2.1)), "a_0001.nii.gz: its geometry differs"),
    "undeclared value": (
        lambda d: change(d / LABEL, first=[7, 7, 7]),
        "a.nii.gz: contains label values that dataset.json does not declare: 7 (3 voxels)",
    ),
    "fractional label": (
        lambda d: change(d / LABEL, array=np.full((8, 12, 10), 0.5)),
        "a.nii.gz: contains 0.5, but label values are whole numbers",
    ),
    "NaN": (lambda d: change(d / IMAGE, first=[np.nan]), "1 of 960 voxels are NaN or infinite"),
    "infinite": (lambda d: change(d / IMAGE, first=[-np.inf, -np.inf]), "2 of 960 voxels are NaN"),
    "4D": (
        lambda d: sitk.WriteImage(sitk.Image([4, 5, 6, 2], sitk.sitkInt16), str(d / IMAGE)),
        "a_0000.nii.gz: a 4D image",
    ),
    "truncated image": (
        lambda d: (d / IMAGE).write_bytes((d / IMAGE).read_bytes()[:-900]),
        "a_0000.nii.gz: truncated or damaged",
    ),
    "truncated label": (
        lambda d: (d / LABEL).write_bytes((d / LABEL).read_bytes()[:-20]),
        "a.nii.gz: truncated or damaged",
    ),
    "axis without voxels": (
        lambda d: change_bytes(d / IMAGE, 42, (-5).to_bytes(2, "little", signed=True)),  # dim[1] of a NIfTI header
        "a_0000.nii.gz: the header declares an axis without voxels",
    ),
    "unreadable image": (lambda d: (d / IMAGE).write_text("no image"), "a_0000.nii.gz: not a NIfTI file"),
    "2D among 3D": (
        lambda d: [change(d / f, array=np.eye(9, dtype=np.uint8), **FLAT) for f in FILES_OF_A],
        "2D and 3D images are mixed: a is 2D",
    ),
}
FLAT = {"spacing": (1, 1), "origin": (0, 0), "direction": (1, 0, 0, 1)}
FILES_OF_A = (IMAGE, "imagesTr/a_0001.nii.gz", LABEL)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_a_file_is_found(make_dataset, fault: str):
    dataset = make_dataset(channels=2, test_cases=["t"])
    spoil, message = FAULTS[fault]
    spoil(dataset)
    faults = verify(dataset).faults
    assert len(faults) == 1
    assert message in faults[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"numTraining": 6}, "numTraining is 6, but there are 5"),
        ({"numTraining": None}, "numTraining is missing. Set it to 5"),
        ({"labels": None}, "labels is missing"),
        ({"file_ending": ".nrrd", "numTraining": 0}, "no file ends in _0000.nrrd"),
        ({"numTraining": -1}, "numTraining is -1"),
        ({"file_ending": None}, "file_ending is missing"),
        ({"channel_names": None}, "channel_names is missing"),
        ({"channel_names": {"1": "T1"}}, "channel_names is malformed"),
        ({"channel_names": {"0": ""}}, "channel_names contains ''"),
        ({"channel_names": [True]}, "channel_names contains True"),
        ({"groups": {"a": ["p"]}}, "groups has ['p'] for case 'a'. Write the name of one group"),
        ({"channel_names": {"0": "a", "1": "b"}, "dataset": "x"}, "dataset is malformed"),
        ({"dataset": {}, "numTraining": 0}, "the key 'dataset' is empty"),
        ({"dataset": {"../a": {"images": ["x"], "label": "y"}}}, "dataset names a case '../a'. Rename it"),
        ({"dataset": {"a": {"images": "x", "label": "y"}}}, "dataset is malformed for case 'a'"),
        ({"labels": {"background": 0, "block": 0, "other": 1}}, "block has the value 0, which is background"),
        ({"labels": {"0": "background", "1": "block", "2": "block"}}, "block is the name of several values"),
        ({"labels": {"": 1}}, "a label has no name"),
        ({"labels": {"all": [1, 2], "part": 2}}, "regions_class_order: missing, but labels declares regions"),
        (
            {"labels": {"all": [1, 2], "part": 2}, "regions_class_order": [1, 1]},
            "regions_class_order: [1, 1] writes the same value for several regions",
        ),
        ({"mirror_axes": ["up"]}, "mirror_axes names up, which is not an axis"),
        ({"sides": [["block", "blok"]]}, "sides names blok, which labels does not declare"),
        ({"sides": [["block", "block"]]}, "sides names block more than once"),
        ({"codes": {"blok": {"value": "1", "meaning": "Block"}}}, "codes names blok, which labels does not declare"),
    ],
)
def test_a_fault_in_dataset_json_is_found(make_dataset, edit_json, changes: dict[str, Any], message: str):
    dataset = make_dataset()
    edit_json(dataset, **changes)
    faults = verify(dataset).faults
    assert len(faults) == 1
    assert message in faults[0]


def test_axes_to_mirror_that_the_images_do_not_have_are_faults(make_dataset):
    flat = make_dataset("Dataset002_Flat", shape=(16, 16), ending=".png", mirror_axes=["x", "z", "left-right"])
    (fault,) = verify(flat).faults
    assert "mirror_axes names left-right, z, an axis that the images do not have. Use x and y." in fault
    unoriented = make_dataset("Dataset003_Unoriented", mirror_axes=["left-right"])
    for file in unoriented.glob("*Tr/*"):
        change_bytes(file, 252, bytes(4))  # qform_code and sform_code of a NIfTI header
    (fault,) = verify(unoriented).faults
    assert "Use x, y and z, because the orientation of the images is unknown" in fault
    assert verify(make_dataset(mirror_axes=["left-right", "z"])).faults == []


def test_axes_that_2d_images_lack_are_found_together_with_other_faults_of_dataset_json(make_dataset):
    wrong = {"mirror_axes": ["z", "up"], "sides": [["block", "blok"]]}
    flat = make_dataset("Dataset002_Flat", shape=(16, 16), ending=".png", **wrong)
    faults = verify(flat).faults
    assert len(faults) == 3
    assert "mirror_axes names z, an axis that the images do not have. Use x and y." in faults[-1]
    assert len(verify(make_dataset(**wrong)).faults) == 2
    (flat / "imagesTr" / "a_0000.png").write_text("no image", encoding="utf-8")
    assert len(verify(flat).faults) == 2


def test_images_of_unknown_orientation_among_others_are_a_warning(make_dataset):
    dataset = make_dataset(direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    for name in ("imagesTr/{}_0000.nii.gz", "labelsTr/{}.nii.gz"):
        change_bytes(dataset / name.format("a"), 252, bytes(4))  # qform_code and sform_code
        turned = str(dataset / name.format("b"))
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(turned), "RAI"), turned)
    report = verify(dataset)
    assert report.faults == []
    assert report.notes[0].startswith(
        "Orientation (z, y, x): SPL (3 cases), unknown (1 case), IAR (1 case). Those that are known are brought to SPL;"
    )
    (warning,) = report.warnings
    assert "the image files of a do not state their orientation. They are taken to have SPL (z, y, x)" in warning


def test_a_label_of_another_orientation_than_its_image_is_a_fault_whose_remedy_helps(make_dataset):
    dataset = make_dataset(direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    image, label = (sitk.ReadImage(str(dataset / file)) for file in (IMAGE, LABEL))
    turned = sitk.DICOMOrient(label, "PIR")
    sitk.WriteImage(turned, str(dataset / LABEL))
    (fault,) = verify(dataset).faults
    assert fault.startswith(f"{dataset / LABEL}: the label is stored as RIP, its image as SPL (z, y, x). Reorient the")
    remedy = fault.split("in Python: ")[1].rstrip(".")
    restored = eval(remedy, {"sitk": sitk, "label": turned, "image": image})
    assert np.array_equal(sitk.GetArrayFromImage(restored), sitk.GetArrayFromImage(label))
    sitk.WriteImage(restored, str(dataset / LABEL))
    assert verify(dataset).faults == []


def test_an_mha_file_without_directions_among_others_is_a_warning(make_dataset):
    dataset = make_dataset(direction=(1, 0, 0, 0, 1, 0, 0, 0, 1), ending=".mha")
    image = dataset / "imagesTr" / "a_0000.mha"
    lines = image.read_bytes().split(b"\n", 13)
    image.write_bytes(b"\n".join(line for line in lines if not line.startswith((b"TransformM", b"Anatomical"))))
    report = verify(dataset)
    assert report.faults == []
    assert "the image files of a do not state their orientation. They are taken to have SPL" in report.warnings[0]


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        ({"train": ["a"]}, "splits_final.json: malformed"),
        ([], "splits_final.json: contains no folds"),
        ([{"train": ["a"], "val": ["z"]}], "splits_final.json: fold 0 names z, which is not a training case"),
    ],
)
def test_a_fault_in_the_folds_is_found(make_dataset, folds: Any, message: str):
    dataset = make_dataset()
    (dataset / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    (fault,) = verify(dataset).faults
    assert message in fault


def test_labels_that_are_all_empty_are_one_fault(make_dataset):
    dataset = make_dataset()
    for file in (dataset / "labelsTr").iterdir():
        change(file, array=np.zeros((8, 12, 10), np.uint8))
    (fault,) = verify(dataset).faults
    assert "no label file contains a foreground label" in fault


def test_a_directory_with_the_name_of_an_image_is_a_fault(make_dataset):
    dataset = make_dataset()
    for file in (IMAGE, LABEL):
        (dataset / file).unlink()
        (dataset / file).mkdir()
    for fault in verify(dataset).faults:
        assert ".nii.gz: a directory, not a file" in fault


def test_a_misspelt_key_is_a_warning(make_dataset):
    report = verify(make_dataset(unanotated_slices="empty", reference="a paper", licence="CC-BY"))
    assert report.faults == []
    (warning,) = report.warnings
    assert "the key 'unanotated_slices' is ignored. Did you mean 'unannotated_slices'?" in warning


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unannotated_slices": "all"}, "unannotated_slices is 'all'. Write \"empty\""),
        ({"unannotated_slices": True}, "unannotated_slices is True"),
        ({"annotated_labels": ["first"]}, "annotated_labels is malformed"),
        ({"annotated_labels": {"a": "first"}}, "annotated_labels is malformed"),
        (
            {"annotated_labels": {"a": ["third"]}},
            "annotated_labels of case 'a' names third. Use names of labels: first",
        ),
        ({"annotated_labels": {"a": ["background"]}}, "annotated_labels of case 'a' names background"),
        ({"annotated_labels": {"a": []}}, "annotated_labels of case 'a' is empty"),
        ({"annotated_labels": {"z": ["first", "second"]}}, "annotated_labels names z, but there is no such training"),
        ({"annotated_labels": {"z": ["first"]}}, "annotated_labels names z, but there is no such training or test"),
        ({"annotated_labels": {"a": ["first"]}}, "a.nii.gz: contains the label value 2, but annotated_labels"),
    ],
)
def test_a_fault_in_what_was_not_annotated_is_found(make_dataset, changes: dict[str, Any], message: str):
    dataset = make_dataset(labels={"background": 0, "first": 1, "second": 2}, **changes)
    (fault,) = verify(dataset).faults
    assert message in fault


@pytest.mark.parametrize(
    ("changes", "number"),
    [
        ({"sides": [["first", "third"]], "unannotated_slices": "all", "annotated_labels": {"z": ["third"]}}, 4),
        ({"labels": {"first": 0}, "mirror_axes": ["up"], "annotated_labels": {"z": ["first"]}}, 3),
        ({"channel_names": None, "annotated_labels": {"z": ["first", "second"]}, "groups": {"a": "p", "y": "q"}}, 2),
    ],
)
def test_cases_that_do_not_exist_are_named_together_with_other_faults_of_dataset_json(
    make_dataset, edit_json, changes: dict[str, Any], number: int
):
    dataset = make_dataset(labels={"background": 0, "first": 1, "second": 2})
    edit_json(dataset, **changes)
    report = verify(dataset)
    assert len(report.faults) == number
    assert "annotated_labels names z, but there is no such training or test case" in report.faults[-1]
    assert any("groups in dataset.json name cases that do not exist: y" in each for each in report.warnings) == (
        "groups" in changes
    )


@pytest.mark.parametrize("change", [{"file_ending": None}, {"dataset": ["a"]}])
def test_cases_are_not_called_unknown_if_it_is_unclear_which_there_are(make_dataset, edit_json, change: dict[str, Any]):
    dataset = make_dataset(annotated_labels={"z": ["block"]})
    edit_json(dataset, **change)
    (fault,) = verify(dataset).faults
    assert next(iter(change)) in fault


def test_values_that_belong_to_an_annotated_region_are_no_fault(make_dataset):
    regions = {"labels": {"background": 0, "whole": [1, 2], "core": [2]}, "regions_class_order": [1, 2]}
    assert verify(make_dataset(annotated_labels={"a": ["whole"]}, **regions)).faults == []
    (fault,) = verify(make_dataset("Dataset002_Core", annotated_labels={"a": ["core"]}, **regions)).faults
    assert "contains the label value 1" in fault


def test_listing_all_labels_is_the_same_as_not_listing_the_case(make_dataset):
    both = {"background": 0, "first": 1, "second": 2}
    dataset = load_dataset(make_dataset(labels=both, annotated_labels={"a": ["second", "first"], "b": ["second"]}))
    assert dataset.annotated_labels == {"b": ("second",)}
    assert [case.annotated_labels for case in dataset.training_cases()] == [None, ("second",), None, None, None]


def keep_slices(dataset: Path, step: int) -> None:
    """Remove the labels from all slices but every `step`-th one."""
    for file in (dataset / "labelsTr").iterdir():
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        array[np.arange(len(array)) % step != 0] = 0
        change(file, array=array)


def test_labels_in_every_third_slice_only_suggest_the_key(make_dataset, edit_json):
    dataset = make_dataset()
    assert verify(dataset).warnings == []
    keep_slices(dataset, 3)
    (warning,) = verify(dataset).warnings
    assert "in 5 of 5 cases, labels occur only in separate slices, most often 3 slices apart" in warning
    assert '"unannotated_slices": "empty"' in warning
    edit_json(dataset, unannotated_slices="empty")
    report = verify(dataset)
    assert report.faults == report.warnings == []
    assert "Annotated slices: 15 of 40; the others are left out (unannotated_slices)." in report.notes


def label_slices(dataset: Path, *slices: tuple[int, ...]) -> None:
    """Label these slices of the cases, one after the other, and no others."""
    for file, numbers in zip(sorted((dataset / "labelsTr").iterdir()), slices, strict=True):
        array = np.zeros((8, 12, 10), np.uint8)
        array[list(numbers), 4:8, 4:8] = 1
        change(file, array=array)


@pytest.mark.parametrize(
    "slices",
    [
        ((1, 4), (2, 5), (0, 3), (4, 7), (3, 6)),
        ((1, 4), (2, 5), (0, 3), (4,), (1, 7)),  # one case with a single slice, one with a slice left out
        ((1, 4, 7), (2, 5), (0, 3), (2, 5), (1, 4)),
    ],
)
def test_two_labelled_slices_per_case_suggest_the_key_if_the_cases_agree(make_dataset, slices: Any):
    dataset = make_dataset()
    label_slices(dataset, *slices)
    (warning,) = verify(dataset).warnings
    assert "labels occur only in separate slices, most often 3 slices apart" in warning


@pytest.mark.parametrize(
    "slices",
    [
        ((1, 4), (2, 3), (3, 4), (1, 2), (5, 6)),  # two small structures in one case
        ((1, 4), (2, 5), (0, 3), (3, 4), (3, 6)),  # adjacent slices in one case
        ((1, 4), (0, 7), (2, 5), (1, 3), (2, 6)),  # small structures in every case
        ((1, 4), (2, 5), (3,), (4,), (5,)),  # in two cases
        ((1,), (2,), (3,), (4,), (5,)),
    ],
)
def test_small_structures_do_not_suggest_the_key(make_dataset, slices: Any):
    dataset = make_dataset()
    label_slices(dataset, *slices)
    assert verify(dataset).warnings == []


def test_the_key_without_any_gap_between_labelled_slices_is_a_warning(make_dataset):
    (warning,) = verify(make_dataset(unannotated_slices="empty")).warnings
    assert "no case has such a slice between slices with labels" in warning


def test_a_case_without_any_annotated_slice_is_a_fault(make_dataset):
    dataset = make_dataset(unannotated_slices="empty")
    change(dataset / LABEL, array=np.zeros((8, 12, 10), np.uint8))
    (fault,) = verify(dataset).faults
    assert "a.nii.gz: contains no label, so no slice counts as annotated" in fault


def test_what_was_not_annotated_is_noted(make_dataset):
    both = {"background": 0, "first": 1, "second": 2}
    dataset = make_dataset(labels=both, annotated_labels={"a": ["first"]})
    label = sitk.GetArrayFromImage(sitk.ReadImage(str(dataset / LABEL)))
    change(dataset / LABEL, array=np.where(label == 2, 0, label))
    report = verify(dataset)
    assert report.faults == []
    assert "Not every label was annotated in 1 of 5 cases (annotated_labels)." in report.notes


def test_test_cases_may_be_annotated_in_part_as_evaluate_takes_into_account(make_dataset, tmp_path: Path):
    both = {"background": 0, "first": 1, "second": 2}
    dataset = make_dataset(labels=both, test_cases=["t", "u"], annotated_labels={"t": ["first"]})
    report = verify(dataset)
    assert report.faults == []
    assert not any("annotated_labels" in note for note in report.notes)
    references = dataset / "labelsTs"
    summary = autocrossdim.evaluate(references, references, dataset=dataset, output=tmp_path / "s.json", processes=1)
    dice = {case.file: case.metrics["2"]["Dice"] for case in summary.metric_per_case}
    assert np.isnan(dice["t.nii.gz"])
    assert dice["u.nii.gz"] == 1


def test_more_cases_than_stated_are_used_and_said(make_dataset, edit_json):
    dataset = make_dataset()
    edit_json(dataset, numTraining=4)
    report = verify(dataset)
    assert report.faults == []
    assert any("numTraining is 4, but there are 5 training cases. All of them are used" in w for w in report.warnings)


def test_missing_folders_are_found(tmp_path: Path, make_dataset):
    assert verify(tmp_path / "gone").faults == [f"{tmp_path / 'gone'}: no such directory."]
    dataset = make_dataset()
    (around,), (inside,) = verify(dataset.parent).faults, verify(dataset / "imagesTr").faults
    assert f"dataset.json: no such file. Give one of the datasets in it: {dataset}" in around
    assert f"dataset.json: no such file. Give the directory of the dataset: {dataset}" in inside
    shutil.rmtree(dataset / "imagesTr")
    shutil.rmtree(dataset / "labelsTr")
    faults = "\n".join(verify(dataset).faults)
    assert "imagesTr: no such directory" in faults
    assert "labelsTr: no such directory" in faults


def test_a_grey_picture_is_not_three_channels(make_dataset, edit_json):
    dataset = make_dataset(shape=(16, 16), ending=".png")
    assert verify(dataset).faults == []
    edit_json(dataset, channel_names={"0": "R", "1": "G", "2": "B"})
    faults = verify(dataset).faults
    assert len(faults) == 5
    assert "a_0000.png: 1 channel, but dataset.json names 3" in faults[0]


def test_a_colour_picture_is_not_one_channel(make_dataset):
    dataset = make_dataset(shape=(16, 16), ending=".png")
    colours = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(dataset / "imagesTr/a_0000.png"))
    (fault,) = verify(dataset).faults
    assert '3 channels, but dataset.json names 1. Write "channel_names": {"0": "red"' in fault


def test_colour_pictures_are_a_good_dataset(make_dataset, edit_json):
    dataset = make_dataset(shape=(16, 16), ending=".png")
    edit_json(dataset, channel_names={"0": "R", "1": "G", "2": "B"})
    for number, file in enumerate((dataset / "imagesTr").iterdir()):
        colours = np.random.default_rng(number).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        sitk.WriteImage(sitk.GetImageFromArray(colours, isVector=True), str(file))
    assert verify(dataset) == Report([], [])


def test_a_file_named_in_dataset_json_that_is_not_there_is_found(make_dataset, edit_json):
    dataset = make_dataset(cases=["a"])
    edit_json(dataset, dataset={"a": {"images": ["imagesTr/gone.nii.gz"], "label": "labelsTr/a.nii.gz"}})
    (fault,) = verify(dataset).faults
    assert "imagesTr/gone.nii.gz: no such file" in fault


def test_all_faults_are_in_one_list(make_dataset, edit_json):
    dataset = make_dataset()
    edit_json(dataset, numTraining=9)
    (dataset / "labelsTr/a.nii.gz").unlink()
    change(dataset / "labelsTr/b.nii.gz", first=[9])
    change(dataset / "imagesTr/b_0000.nii.gz", first=[np.nan])
    (dataset / "imagesTr/c_0000.nii.gz").write_bytes(b"")
    faults = "\n".join(verify(dataset).faults)
    for words in (
        "numTraining is 9",
        "a.nii.gz: no such file, but every training case needs a label",
        "declare: 9",
        "NaN",
        "c_0000.nii.gz: not a NIfTI",
    ):
        assert words in faults
    assert len(verify(dataset).faults) == 5


WARNINGS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no foreground": (
        lambda d: change(d / LABEL, array=np.zeros((8, 12, 10), np.uint8)),
        "labelsTr/a.nii.gz: contains background only",
    ),
    "constant channel": (
        lambda d: change(d / IMAGE, array=np.full((8, 12, 10), 3, np.float32)),
        "a_0000.nii.gz: channel 0 is 3 everywhere",
    ),
    "identical cases": (
        lambda d: (
            shutil.copy(d / IMAGE, d / "imagesTr/f_0000.nii.gz") and shutil.copy(d / LABEL, d / "labelsTr/f.nii.gz")
        ),
        "cases a, f have identical images",
    ),
    "other format": (
        lambda d: shutil.copy(d / IMAGE, d / "labelsTr/a.nii"),
        "labelsTr/a.nii: ignored, because file_ending in dataset.json is .nii.gz",
    ),
    "label without image": (
        lambda d: [(d / "imagesTr/f_0000.nii.gz").unlink(), shutil.copy(d / LABEL, d / "labelsTr/f.nii.gz")],
        "labelsTr/f.nii.gz: a label without an image",
    ),
}


@pytest.mark.parametrize("warning", WARNINGS)
def test_what_may_be_meant_is_a_warning(make_dataset, edit_json, warning: str):
    dataset = make_dataset(cases=["a", "b", "c", "d", "e", "f"])
    spoil, message = WARNINGS[warning]
    spoil(dataset)
    edit_json(dataset, numTraining=len(list((dataset / "imagesTr").iterdir())))
    report = verify(dataset)
    assert report.faults == []
    assert len(report.warnings) == 1
    assert message in report.warnings[0]


def test_few_cases_groups_that_do_not_fit_and_unused_labels_are_warnings(make_dataset, edit_json):
    dataset = make_dataset(cases=["a", "b", "c", "d"])
    assert "only 4 training cases" in verify(dataset).warnings[0]
    dataset = make_dataset("Dataset002_Groups", groups={"a": "p", "b": "p", "z": "p"})
    warnings = "\n".join(verify(dataset).warnings)
    assert "name cases that do not exist: z" in warnings
    assert "do not name c, d, e" in warnings
    assert "only 4 groups, fewer than 5: each fold holds out one of them" in warnings
    (dataset / "imagesUn").mkdir()
    for name in "bz":
        shutil.copy(dataset / "imagesTr" / "a_0000.nii.gz", dataset / "imagesUn" / f"scan_{name}_0000.nii.gz")
    edit_json(dataset, groups={**dict.fromkeys("abcde", "p"), "scan_b": "p"})
    assert "groups in dataset.json do not name scan_z of imagesUn: each is a group of its own." in " ".join(
        verify(dataset).warnings
    )
    dataset = make_dataset("Dataset004_One", groups=dict.fromkeys("abcde", "p"))
    assert "only 1 group, fewer than 5: no case can be held out" in "\n".join(verify(dataset).warnings)
    dataset = make_dataset("Dataset003_Unused")
    edit_json(dataset, labels={"background": 0, "block": 1, "rare": 2, "ignore": 3})
    assert verify(dataset).warnings == ["label 'rare' (2) does not occur in any case."]


def test_a_case_is_checked_by_itself_and_can_come_from_a_worker(make_dataset):
    dataset = load_dataset(make_dataset())
    check = pickle.loads(pickle.dumps(check_case(dataset, dataset.training_cases()[0])))
    assert check.image.array.shape == (1, 8, 12, 10)
    assert check.label.shape == (8, 12, 10)
    assert check.values == (0, 1)
    assert check.faults == check.warnings == []
    assert summarise([check_structure(dataset.path), check]).faults == []


def test_several_processes_find_the_same(make_dataset):
    dataset = make_dataset()
    change(dataset / IMAGE, first=[np.nan])
    assert verify(dataset, processes=2) == verify(dataset)


def test_the_template_is_a_whole_dataset():
    template = Path(__file__).resolve().parents[2] / "datasets_template" / "Dataset999_Template"
    report = verify(template)
    assert report.faults == []
    assert len(report.warnings) == 1
    assert "only 2" in report.warnings[0]
    assert sum(file.stat().st_size for file in template.rglob("*")) < 40_000
    explained = (template.parent / "README.md").read_text(encoding="utf-8")
    for key in load_dataset(template).description:
        assert f"`{key}`" in explained
