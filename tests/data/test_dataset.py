import json
import shutil
from pathlib import Path

import pytest

from autocrossdim.data.dataset import cases_in_folder, load_dataset
from autocrossdim.system.errors import UserError

# --- dataset.json


def test_a_dataset_is_read(make_dataset):
    path = make_dataset(cases=["b", "a"], test_cases=["t"], channels=2, groups={"a": "p", "b": "p"})
    dataset = load_dataset(path)
    assert dataset.name == "Dataset001_Tiny"
    assert dataset.channel_names == ("channel 0", "channel 1")
    assert dataset.labels.foreground == {"block": (1,)}
    assert (dataset.file_ending, dataset.num_training) == (".nii.gz", 2)
    assert dataset.groups == {"a": "p", "b": "p"}
    a, b = dataset.training_cases()
    assert (a.name, b.name) == ("a", "b")
    assert a.images == (path / "imagesTr/a_0000.nii.gz", path / "imagesTr/a_0001.nii.gz")
    assert a.label == path / "labelsTr/a.nii.gz"
    (test,) = dataset.test_cases()
    assert (test.name, test.label) == ("t", path / "labelsTs/t.nii.gz")
    (path / "labelsTs/t.nii.gz").unlink()
    assert dataset.test_cases()[0].label is None


def test_nnunets_first_version_is_read(make_dataset, edit_json):
    path = make_dataset()
    edit_json(
        path,
        modality={"0": "MRI"},
        labels={"0": "background", "1": "block"},
        channel_names=None,
        file_ending=None,
    )
    dataset = load_dataset(path)
    assert dataset.channel_names == ("MRI",)
    assert dataset.labels.foreground == {"block": (1,)}
    assert dataset.file_ending == ".nii.gz"


def test_files_may_be_named_one_by_one(make_dataset, edit_json):
    path = make_dataset(cases=["a"])
    (path / "elsewhere").mkdir()
    shutil.move(path / "imagesTr/a_0000.nii.gz", path / "elsewhere/scan.nii.gz")
    edit_json(path, dataset={"x": {"images": ["elsewhere/scan.nii.gz"], "label": "labelsTr/a.nii.gz"}})
    (case,) = load_dataset(path).training_cases()
    assert case.name == "x"
    assert case.images == (path / "elsewhere/scan.nii.gz",)
    assert case.images[0].exists()
    assert case.label == path / "labelsTr/a.nii.gz"


def test_one_colour_picture_serves_three_channels(make_dataset, edit_json):
    path = make_dataset(shape=(16, 16), ending=".png")
    edit_json(path, channel_names={"0": "R", "1": "G", "2": "B"})
    assert [len(case.images) for case in load_dataset(path).training_cases()] == [1] * 5


def test_files_of_other_kinds_and_hidden_ones_are_no_cases(make_dataset):
    path = make_dataset(cases=["a"])
    for name in (".hidden_0000.nii.gz", "notes.txt", "a_0000.json"):
        (path / "imagesTr" / name).touch()
    assert [case.name for case in load_dataset(path).training_cases()] == ["a"]


def test_every_fault_of_dataset_json_is_told_at_once(tmp_path: Path):
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"x": 1, "y": 1}, "groups": []}))
    with pytest.raises(UserError) as error:
        load_dataset(tmp_path)
    for word in ("channel_names is missing", "same value", "file_ending is missing", "groups is malformed"):
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "labels is missing"),
        ({"channel_names": {"1": "T1", "2": "T2"}}, "channel_names"),
        ({"file_ending": ".jpg"}, "file_ending is '.jpg'"),
        ({"numTraining": "five"}, "numTraining is 'five'"),
        ({"dataset": {"a": ["x"]}}, "dataset is malformed"),
        ({"dataset": {"a": {"images": [], "label": "labelsTr/a.nii.gz"}}}, "dataset is malformed"),
        (
            {"dataset": {"../a": {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}}},
            r"without /, \\ and control characters",
        ),
        ({"labels": {"a": [1, 2], "b": 1}}, "regions_class_order"),
        ({"labels": {"a": [1, 2], "b": 1}, "regions_class_order": 2}, "regions_class_order"),
        ({"labels": {"a": [1, 2], "b": 1}, "regions_class_order": [1, "2"]}, "regions_class_order"),
    ],
)
def test_a_wrong_key_is_named(make_dataset, edit_json, changes: dict[str, object], message: str):
    path = make_dataset()
    edit_json(path, **changes)
    with pytest.raises(UserError, match=message):
        load_dataset(path)


@pytest.mark.parametrize("name", ["", ".", "..", ".h", "a/b", "a\\b"])
def test_a_case_that_could_be_no_file_name_is_named(make_dataset, edit_json, name: str):
    path = make_dataset(cases=["a"])
    edit_json(path, dataset={name: {"images": ["imagesTr/a_0000.nii.gz"], "label": "labelsTr/a.nii.gz"}})
    with pytest.raises(UserError) as error:
        load_dataset(path)
    assert f"dataset names a case {name!r}. Rename it" in str(error.value)


def test_no_folder_no_file_and_no_json_are_told_apart(tmp_path: Path):
    with pytest.raises(UserError, match="no such directory"):
        load_dataset(tmp_path / "gone")
    with pytest.raises(UserError, match=r"dataset\.json: no such file"):
        load_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": ')
    with pytest.raises(UserError, match="not valid JSON"):
        load_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("[]")
    with pytest.raises(UserError, match="JSON object"):
        load_dataset(tmp_path)


# --- inputs of a prediction


def test_cases_to_predict_are_found_by_channel(make_dataset):
    folder = make_dataset(cases=["a", "b"], channels=2) / "imagesTr"
    cases = cases_in_folder(folder, 2, ".nii.gz")
    assert [(case.name, len(case.images), case.label) for case in cases] == [("a", 2, None), ("b", 2, None)]


def test_a_case_without_all_channels_is_an_error_that_names_the_file(make_dataset):
    folder = make_dataset(cases=["a", "b"], channels=2) / "imagesTr"
    (folder / "b_0001.nii.gz").unlink()
    with pytest.raises(UserError, match=r"b_0001\.nii\.gz: no such file"):
        cases_in_folder(folder, 2, ".nii.gz")


def test_a_file_that_belongs_to_no_case_is_an_error_rather_than_left_out(make_dataset):
    folder = make_dataset(cases=["a", "b"], channels=2) / "imagesTr"
    with pytest.raises(UserError, match=r"a_0001\.nii\.gz: the model takes 1 channel"):
        cases_in_folder(folder, 1, ".nii.gz")
    shutil.copy(folder / "a_0000.nii.gz", folder / "c.nii.gz")
    with pytest.raises(UserError, match=r"c\.nii\.gz: the name lacks a channel number"):
        cases_in_folder(folder, 2, ".nii.gz")


def test_one_channel_needs_no_number(make_dataset):
    folder = make_dataset(cases=["a", "b"]) / "labelsTr"
    assert [case.name for case in cases_in_folder(folder, 1, ".nii.gz")] == ["a", "b"]
    with pytest.raises(UserError, match="CASE_0000"):
        cases_in_folder(folder, 2, ".nii.gz")


def test_images_of_other_formats_are_named(make_dataset, capfd: pytest.CaptureFixture[str]):
    folder = make_dataset(cases=["a", "b"]) / "imagesTr"
    (folder / "a_0000.nii.gz").rename(folder / "a_0000.NII.GZ")
    shutil.copy(folder / "b_0000.nii.gz", folder / "c_0000.nrrd")
    assert [case.name for case in cases_in_folder(folder, 1, ".nii.gz")] == ["b"]
    assert "2 images of another format left out (a_0000.NII.GZ, c_0000.nrrd). The model takes" in capfd.readouterr().err


def test_folders_of_dicom_slices_are_cases(tmp_path: Path, real_data: Path):
    series = real_data / "formats/dicom_sunnybrook/ED_series"
    assert [case.name for case in cases_in_folder(series, 1, ".nii.gz")] == ["ED_series"]
    cases = cases_in_folder(series.parent, 1, ".nii.gz")
    assert [case.name for case in cases] == ["ED_series", "mixed_phases_same_positions"]
    assert cases[0].images == (series,)


def test_an_empty_folder_and_none_are_errors(tmp_path: Path):
    with pytest.raises(UserError, match="contains no case"):
        cases_in_folder(tmp_path, 1, ".nii.gz")
    with pytest.raises(UserError, match="no such directory"):
        cases_in_folder(tmp_path / "gone", 1, ".nii.gz")
