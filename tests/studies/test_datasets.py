import json

import pytest

from autocrossdim.data.dataset import load_dataset
from autocrossdim.studies.datasets import case_digests, write_test_cases, write_training_dataset
from autocrossdim.system.errors import UserError


@pytest.fixture
def source(make_dataset):
    return load_dataset(
        make_dataset(
            labels={"background": 0, "block": 1, "other": 2},
            groups={"a": "one", "b": "two"},
            annotated_labels={"c": ["block"]},
        )
    )


def test_a_dataset_of_some_cases_refers_to_the_original_files(source, tmp_path):
    raw = load_dataset(write_training_dataset(source, tmp_path / "run", train=["a", "c"]))
    assert raw.name == source.name
    cases = {case.name: case for case in raw.training_cases()}
    assert list(cases) == ["a", "c"]
    assert cases["a"].label == source.path / "labelsTr" / "a.nii.gz"
    assert raw.groups == {"a": "one"}
    assert cases["c"].annotated_labels == ("block",)
    assert not (raw.path / "splits_final.json").exists()


def test_a_corrected_label_changes_the_digest_of_its_case(source):
    before = case_digests(source)
    file = source.path / "labelsTr" / "b.nii.gz"
    file.write_bytes((source.path / "labelsTr" / "c.nii.gz").read_bytes())
    after = case_digests(source)
    assert {name for name in before if before[name] != after[name]} == {"b"}
    assert len(after) == 5


def test_validation_cases_become_a_fold(source, tmp_path):
    path = write_training_dataset(source, tmp_path / "run", train=["b", "a"], val=["e"])
    assert json.loads((path / "splits_final.json").read_text(encoding="utf-8")) == [{"train": ["a", "b"], "val": ["e"]}]


def test_held_out_cases_are_linked_under_the_names_that_predict_expects(source, tmp_path):
    write_test_cases(source, tmp_path, ["b", "d"])
    write_test_cases(source, tmp_path, ["b", "d"])  # they may be there already
    assert [file.name for file in sorted((tmp_path / "images").iterdir())] == ["b_0000.nii.gz", "d_0000.nii.gz"]
    label = tmp_path / "labels" / "d.nii.gz"
    assert label.read_bytes() == (source.path / "labelsTr" / "d.nii.gz").read_bytes()


def test_files_are_copied_where_links_are_impossible(source, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr("pathlib.Path.symlink_to", refuse)
    write_test_cases(source, tmp_path, ["a"])
    assert not (tmp_path / "labels" / "a.nii.gz").is_symlink()
    assert (tmp_path / "labels" / "a.nii.gz").stat().st_size


def test_the_spacing_of_a_tiff_comes_along(make_dataset, tmp_path):
    source = load_dataset(make_dataset(ending=".tif", shape=(12, 10)))
    (source.path / "imagesTr" / "a.json").write_text('{"spacing": [1, 1]}', encoding="utf-8")
    write_test_cases(source, tmp_path, ["a"])
    assert (tmp_path / "images" / "a.json").is_file()


def test_a_missing_file_is_named(source, tmp_path):
    (source.path / "labelsTr" / "a.nii.gz").unlink()
    with pytest.raises(UserError, match="verify"):
        write_test_cases(source, tmp_path, ["a"])
