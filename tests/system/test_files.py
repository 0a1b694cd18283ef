import os
import subprocess
import time
from pathlib import Path

import pytest

from autocrossdim.system import files
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import (
    check_output,
    read_json,
    remove_directory,
    remove_leftovers,
    write_csv,
    write_json,
    written_whole,
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "new" / "a.json", {"a": [1, 2]})
    assert read_json(tmp_path / "new" / "a.json") == {"a": [1, 2]}


def test_a_byte_order_mark_is_not_part_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a":\r\n1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}


def test_a_table_quotes_what_has_commas(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ("case", "why"), [("a", "far, and bright"), ("b", None)])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == 'case,why\na,"far, and bright"\nb,\n'


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert path.read_text(encoding="utf-8") == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_a_temporary_name_keeps_the_ending(tmp_path: Path) -> None:
    with written_whole(tmp_path / "case.nii.gz") as temporary:
        assert temporary.name.endswith("case.nii.gz")
        temporary.touch()


def start_writing(path: Path, process: int | None = None) -> Path:
    """Write a temporary file and never go on, as if by another process."""
    temporary = written_whole(path).__enter__()
    if process is not None:
        temporary = temporary.with_name(temporary.name.replace(f"-{os.getpid()}-", f"-{process}-"))
    temporary.touch()
    return temporary


@pytest.fixture
def dead() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        return process.pid


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".mine").touch()
    start_writing(tmp_path / "checkpoint_latest")
    (tmp_path / "checkpoint_latest").touch()
    assert len(list(tmp_path.iterdir())) == 3
    remove_leftovers(tmp_path, alone=True)
    assert {file.name for file in tmp_path.iterdir()} == {".mine", "checkpoint_latest"}


def test_the_first_file_that_is_written_removes_what_killed_processes_left(tmp_path: Path, dead: int) -> None:
    (tmp_path / ".mine").touch()
    unfinished = start_writing(tmp_path / "a.nii.gz")
    start_writing(tmp_path / "b.nii.gz", dead)
    files._cleaned.clear()  # as in a process that has not written yet
    write_json(tmp_path / "c.json", {})
    assert {file.name for file in tmp_path.iterdir()} == {".mine", unfinished.name, "c.json"}


def test_a_file_that_is_a_day_old_is_removed_even_if_a_process_has_the_number_of_its_writer(tmp_path: Path) -> None:
    new, old = (start_writing(tmp_path / name) for name in ("new", "old"))
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_files_that_another_machine_writes_are_kept_for_a_day(
    tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(files, "_machine", lambda: "ffffff")
        new, old = (start_writing(tmp_path / name, dead) for name in ("new", "old"))
    os.utime(old, (time.time() - 2 * 24 * 3600,) * 2)
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [new]


def test_a_directory_is_removed_or_the_file_that_stays_is_named(unprivileged: Path) -> None:
    write_json(unprivileged / "results" / "kept" / "a.json", {})
    (unprivileged / "results" / "kept").chmod(0o500)
    with pytest.raises(UserError, match=r"a\.json: cannot be removed \(permission denied\)"):
        remove_directory(unprivileged / "results")
    (unprivileged / "results" / "kept").chmod(0o700)
    remove_directory(unprivileged / "results")
    remove_directory(unprivileged / "results")  # nothing is there
    assert not list(unprivileged.iterdir())


def test_a_process_killed_while_it_removes_a_directory_leaves_nothing_that_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("restart", "checkpoint_latest"):
        (tmp_path / "fold_0").mkdir(exist_ok=True)
        (tmp_path / "fold_0" / name).touch()

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        remove_directory(tmp_path / "fold_0", first="checkpoint_latest")
    assert [file.name for file in (tmp_path / "fold_0").iterdir()] == ["restart"]


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


@pytest.mark.parametrize("name", [".", "x" * 300])
def test_an_output_is_checked_before_long_work(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        check_output(tmp_path / name)
    check_output(tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []
