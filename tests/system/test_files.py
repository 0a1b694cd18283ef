from pathlib import Path

import pytest

from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, remove_leftovers, write_csv, write_json, written_whole


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"a": [1, 2]})
    assert read_json(tmp_path / "new" / "a.json") == {"a": [1, 2]}


def test_a_table_quotes_what_has_commas(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ("case", "why"), [("a", "far, and bright"), ("b", None)])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == 'case,why\na,"far, and bright"\nb,\n'


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_temporary_name_keeps_the_ending(tmp_path: Path) -> None:
    with written_whole(tmp_path / "case.nii.gz") as temporary:
        assert temporary.name.endswith("case.nii.gz")
        temporary.touch()


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".mine").touch()
    writer = written_whole(tmp_path / "checkpoint_latest")
    writer.__enter__().touch()  # and never goes on
    (tmp_path / "checkpoint_latest").touch()
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {".mine", "checkpoint_latest"}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/a.json"):
        write_json(tmp_path / "file" / "a.json", {})


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe"])
def test_damaged_json_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match="a.json: not valid JSON"):
        read_json(tmp_path / "a.json")


def test_missing_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_json(tmp_path / "a.json")
