"""Whatever the operating system refuses ends in one line that names the path and a remedy."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from autocrossdim.system.errors import UserError, from_os_error, is_name_error
from autocrossdim.system.files import library_path, list_directory, make_directory, read_json, reading, write_text


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.EACCES, r"x: cannot be read \(permission denied\)\. Ask its owner"),
        (errno.ENOENT, r"x: no such file or directory\. Check"),
        (errno.ENOSPC, r"x: cannot be read \(the disk is full\)\. Free some space"),
        (errno.ENAMETOOLONG, r"x: cannot be read \(.*too long\)\. Choose a shorter one"),
        (errno.EPROTO, r"x: cannot be read \(Protocol error\)\. Check"),  # not explained: the system's own words
    ],
)
def test_an_error_number_becomes_reason_and_remedy(number: int, message: str) -> None:
    error = from_os_error(OSError(number, os.strerror(number)), "x", "read")
    assert isinstance(error, UserError)
    with pytest.raises(UserError, match=f"^{message}"):
        raise error


def test_the_path_of_the_error_is_named_unless_another_is_given() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/data/labelsTr")
    assert str(from_os_error(error)).startswith("/data/labelsTr: ")
    assert str(from_os_error(error, "/data")).startswith("/data: ")
    assert str(from_os_error(OSError("connection lost"))).startswith("Connection lost. ")


def test_a_message_shows_no_control_characters_and_no_endless_path() -> None:
    message = str(from_os_error(OSError(errno.ENAMETOOLONG, ""), "\x1b[2J" + "x" * 5000))
    assert message.isprintable()
    assert len(message) < 500


def test_other_value_errors_are_not_about_a_name() -> None:
    assert is_name_error(ValueError("embedded null byte"))
    assert not is_name_error(ValueError("null hypothesis"))
    with pytest.raises(ValueError, match="7"), reading():
        raise ValueError("7")


# --- real refusals

IMPOSSIBLE_NAMES = {
    "too long": ("x" * 300, "too long"),
    "path too long": ("x/" * 4000, "too long"),
    "null character": ("a\0b", "invalid characters"),
    "half of a surrogate pair": ("a\ud800", "invalid characters"),
}

READERS: dict[str, Callable[[Path], object]] = {
    "JSON": read_json,
    "directory": list_directory,
}
WRITERS: dict[str, Callable[[Path], object]] = {
    "text": lambda path: write_text(path, "text"),
    "text in a directory": lambda path: write_text(path / "a.txt", "text"),
    "directory": make_directory,
}


@pytest.mark.parametrize("name", IMPOSSIBLE_NAMES)
@pytest.mark.parametrize("access", [*READERS.values(), *WRITERS.values()], ids=[*READERS, *WRITERS])
def test_names_that_cannot_exist(tmp_path: Path, name: str, access: Callable[[Path], object]) -> None:
    text, reason = IMPOSSIBLE_NAMES[name]
    with pytest.raises(UserError, match=reason) as error:
        access(tmp_path / text)
    assert str(error.value).isprintable()


@pytest.fixture
def locked(unprivileged: Path) -> Iterator[Path]:
    """A directory that the current user may not enter."""
    folder = unprivileged / "locked"
    folder.mkdir()
    (folder / "a.json").write_text("{}")
    folder.chmod(0)
    yield folder
    folder.chmod(0o700)


@pytest.mark.parametrize("access", [*READERS.values(), *WRITERS.values()], ids=[*READERS, *WRITERS])
def test_a_directory_without_access(locked: Path, access: Callable[[Path], object]) -> None:
    with pytest.raises(UserError, match=r"locked/a\.json.*: cannot be .* \(permission denied\)"):
        access(locked / "a.json")


def test_a_file_without_access(unprivileged: Path) -> None:
    (unprivileged / "a.json").write_text("{}")
    (unprivileged / "a.json").chmod(0)
    with pytest.raises(UserError, match=r"a\.json: cannot be read \(permission denied\)"):
        read_json(unprivileged / "a.json")


def test_a_read_only_directory(unprivileged: Path) -> None:
    unprivileged.chmod(0o500)
    for write in WRITERS.values():
        with pytest.raises(UserError, match=r"permission denied"):
            write(unprivileged / "new")
    with pytest.raises(UserError, match=r"permission denied"):
        make_directory(unprivileged)


# --- what is no regular file


@pytest.mark.parametrize("path", [Path(), Path("/"), Path("..")])
def test_a_directory_in_place_of_a_file(path: Path) -> None:
    with pytest.raises(UserError, match="is a directory. Name a file"):
        write_text(path, "text")


posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")


@posix
def test_a_device_is_neither_replaced_nor_a_directory() -> None:
    null = Path(os.devnull)
    with pytest.raises(UserError, match="/dev/null: is a device"):
        write_text(null, "text")
    for path in (null / "a.txt", null / "a" / "b.txt"):
        with pytest.raises(UserError, match="a file, not a directory"):
            write_text(path, "text")
    with pytest.raises(UserError, match="a file, not a directory"):
        make_directory(null)
    with pytest.raises(UserError, match="not a regular file"):
        read_json(Path("/dev/zero"))
    assert null.is_char_device()


@posix
def test_a_pipe_and_a_socket_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may have 100 characters
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name in ("pipe", "socket"):
            with pytest.raises(UserError, match="not a regular file"):
                read_json(Path(name))
            with pytest.raises(UserError, match="is a device, pipe or socket"):
                write_text(Path(name), "text")


@posix
def test_links_in_a_circle(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(UserError, match="loop"):
        list_directory(tmp_path / "a")


def test_a_directory_with_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        (tmp_path / str(number)).touch()
    assert [file.name for file in list_directory(tmp_path)] == ["0", "1", "2", "3"]
    monkeypatch.setattr("autocrossdim.system.files.MAX_ENTRIES", 3)
    with pytest.raises(UserError, match="more than 3 entries"):
        list_directory(tmp_path)


def test_a_library_gets_no_name_that_is_not_utf8() -> None:
    assert library_path(Path("é")) == "é"
    with pytest.raises(UserError, match=r"caf\?: the name is not valid UTF-8"):
        library_path(Path(os.fsdecode(b"caf\xe9")))
