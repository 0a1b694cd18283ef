import os
from pathlib import Path

import pytest

from autocrossdim.records.sources import NEVER, content_hash, file_versions
from autocrossdim.system.errors import UserError


def write(path: Path, content: bytes, seconds_ago: int = 100) -> Path:
    path.write_bytes(content)
    time = path.stat().st_mtime_ns - seconds_ago * 10**9
    os.utime(path, ns=(time, time))
    return path


def test_the_hash_depends_on_contents_and_their_order_alone(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", b"1"), write(tmp_path / "b", b"2", seconds_ago=7)
    (tmp_path / "moved").mkdir()
    moved = write(tmp_path / "moved" / "a", b"1", seconds_ago=50)
    assert content_hash(file_versions([a, b])) == content_hash(file_versions([moved, b]))
    assert content_hash(file_versions([a, b])) != content_hash(file_versions([b, a]))
    assert content_hash(file_versions([a])) != content_hash(file_versions([a, b]))


def test_size_or_time_make_a_file_be_read_again(tmp_path: Path) -> None:
    file = write(tmp_path / "a", b"1")
    known = file_versions([file])
    assert file_versions([file], known) == known
    write(file, b"2", seconds_ago=60)
    changed = file_versions([file], known)
    assert changed[0].content != known[0].content
    write(file, b"2", seconds_ago=40)
    touched = file_versions([file], changed)
    assert touched[0].content == changed[0].content
    assert touched[0].modified_ns != changed[0].modified_ns


def test_the_time_of_a_file_that_was_just_written_is_not_relied_on(tmp_path: Path) -> None:
    file = write(tmp_path / "a", b"1", seconds_ago=0)
    (known,) = file_versions([file])
    assert known.modified_ns == NEVER
    time = file.stat().st_mtime_ns
    file.write_bytes(b"2")
    os.utime(file, ns=(time, time))
    assert file_versions([file], [known])[0].content != known.content


def test_another_number_of_files_is_another_version(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", b"1"), write(tmp_path / "b", b"2")
    assert len(file_versions([a, b], file_versions([a]))) == 2


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a: no such file"):
        file_versions([tmp_path / "a"])
