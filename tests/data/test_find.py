from pathlib import Path

import pytest

from autocrossdim.data.find import find_dataset, find_raw
from autocrossdim.system.errors import UserError


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("Dataset004_Hippocampus", "Dataset045_Heart", "Dataset046_Heart"):
        (tmp_path / "raw" / name).mkdir(parents=True)
    monkeypatch.setenv("AUTOCROSSDIM_RAW", str(tmp_path / "raw"))
    monkeypatch.delenv("nnUNet_raw", raising=False)
    return tmp_path / "raw"


@pytest.mark.parametrize("argument", ["Dataset004_Hippocampus", "Dataset004", "Hippocampus", "4", "004", 4])
def test_a_dataset_is_found_by_name_and_number(raw: Path, argument: str | int):
    assert find_dataset(argument) == raw / "Dataset004_Hippocampus"


def test_a_path_needs_no_variable(raw: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AUTOCROSSDIM_RAW")
    assert find_dataset(raw / "Dataset045_Heart") == raw / "Dataset045_Heart"


def test_nnunets_variable_comes_second(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "other"))
    (tmp_path / "other" / "Dataset004_Other").mkdir(parents=True)
    (tmp_path / "other" / "Dataset005_Prostate").mkdir()
    assert find_dataset("4") == raw / "Dataset004_Hippocampus"
    assert find_dataset("5") == tmp_path / "other" / "Dataset005_Prostate"


def test_what_is_not_found_is_an_error_that_says_where_was_looked(raw: Path):
    with pytest.raises(UserError, match=rf"Liver: no such dataset.*{raw}.*nnUNet_raw \(not set\)"):
        find_dataset("Liver")
    with pytest.raises(UserError, match="no such dataset"):
        find_dataset("²")  # a digit that is no number
    with pytest.raises(UserError, match="Did you mean Dataset045_Heart?"):
        find_dataset("Dataset045_Hearth")


def test_a_file_of_a_dataset_is_answered_with_its_directory(make_dataset):
    dataset = make_dataset()
    with pytest.raises(UserError, match=f"a file, not the directory of a dataset. Give the directory .*: {dataset}$"):
        find_dataset(dataset / "dataset.json")


def test_two_datasets_of_one_name_are_an_error(raw: Path):
    with pytest.raises(UserError, match="Dataset045_Heart, Dataset046_Heart"):
        find_dataset("Heart")


def test_a_work_directory_is_not_taken_for_the_dataset(raw: Path, tmp_path: Path):
    work = tmp_path / "work" / raw.name
    work.mkdir(parents=True)
    (work / "plan.json").touch()
    (work / "dataset.json").touch()
    with pytest.raises(UserError, match="contains results, not the dataset. Give the directory with imagesTr"):
        find_raw(work)
    assert find_raw(raw) == raw
