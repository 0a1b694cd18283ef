"""Reading and writing files. A file is written to a temporary name, then renamed: it is complete or absent."""

import csv
import hashlib
import io
import json
import os
import platform
import re
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from itertools import islice
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, TypeVar

from autocrossdim.system.errors import UserError, first_fault, from_os_error, is_name_error
from autocrossdim.system.text import shown_path

if TYPE_CHECKING:
    from pydantic import BaseModel

Record = TypeVar("Record", bound="BaseModel")

MAX_ENTRIES = 1_000_000  # of a directory; the largest public datasets have a tenth of that
MAX_JSON_BYTES = 2**28  # a summary of 10,000 cases and 100 labels has 2**27

_TEMPORARY = re.compile(r"\.([0-9a-f]{6})-(\d+)-[0-9a-f]{6}\.")  # before the final name: machine, process, random
_SECONDS_TO_FINISH = 24 * 3600  # after which a temporary file counts as left behind, whoever wrote it
_cleaned: set[Path] = set()  # directories in which this process has removed what others left behind


@contextmanager
def reading(path: Path | None = None) -> Iterator[None]:
    """Turn what the operating system refuses inside into a UserError, as a block or as a decorator.

    Args:
        path: Path to name in the message (default: the one the error names).

    Raises:
        UserError: Permission denied, name too long or impossible, broken drive and so on.

    Example:
        >>> with reading():
        ...     found = Path("labelsTr/case_001.nii.gz").is_file()
    """
    try:
        yield
    except OSError as error:
        raise from_os_error(error, path, "read") from error
    except ValueError as error:
        if not is_name_error(error):
            raise
        raise from_os_error(error, path, "read") from error


def library_path(path: Path) -> str:
    """Return a path for a library written in C++: ITK ends the whole process on a name that is not valid UTF-8.

    Raises:
        UserError: The name is not valid UTF-8.
    """
    text = str(path)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"{shown_path(path)}: the name is not valid UTF-8. Rename the file or directory.") from error
    return text


def list_directory(path: Path) -> list[Path]:
    """Return the entries of a directory, sorted by name.

    Raises:
        UserError: No such directory, no access, or more than `MAX_ENTRIES` entries.
    """
    with reading(path), os.scandir(path) as entries:
        names = [entry.name for entry in islice(entries, MAX_ENTRIES + 1)]
    if len(names) > MAX_ENTRIES:
        raise UserError(f"{path}: contains more than {MAX_ENTRIES:,} entries. Choose the directory with the images.")
    return [path / name for name in sorted(names)]


def make_directory(path: Path) -> Path:
    """Create a directory, with its parents, unless it exists; return it.

    Call it before long work, so that a directory that cannot be written to is reported at the beginning.

    Raises:
        UserError: It cannot be created, is not a directory, or cannot be written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            return path
    except (OSError, ValueError) as error:
        raise from_os_error(error, path, "written to") from error


@contextmanager
def written_whole(path: Path, *failures: type[Exception]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, delete it on failure.

    The temporary name keeps the file's endings, because image writers choose the format by them, and
    starts with a dot, so that it is never listed as a case. What killed processes left behind in the directory is
    removed the first time this process writes there.

    Args:
        path: Final path; an existing file is replaced.
        failures: Exceptions other than OSError that the writer raises on a full disk.

    Raises:
        UserError: The file cannot be written, or `path` is a directory, device, pipe or socket.
    """
    path = Path(path)
    expected: tuple[type[Exception], ...] = (OSError, *failures)
    temporary: Path | None = None
    try:
        _refuse_special(path)
        temporary = path.with_name(f".{_machine()}-{os.getpid()}-{uuid.uuid4().hex[:6]}.{path.name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent not in _cleaned:
            remove_leftovers(path.parent)
            _cleaned.add(path.parent)
        yield temporary
        with temporary.open("rb+") as file:  # Windows flushes only files opened for writing
            os.fsync(file.fileno())  # otherwise a power cut could leave the new name on an empty file
        temporary.replace(path)
        temporary = None
    except expected as error:
        raise from_os_error(error, path, "written") from error
    except ValueError as error:
        if not is_name_error(error):
            raise
        raise from_os_error(error, path, "written") from error
    finally:
        if temporary is not None:
            with suppress(OSError, ValueError):
                temporary.unlink()


def check_output(path: Path) -> None:
    """Check before long work that `path` can be the name of a file to write.

    Raises:
        UserError: It is a directory, device, pipe or socket, or no possible name.
    """
    try:
        _refuse_special(path)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) and not is_name_error(error):
            raise
        raise from_os_error(error, path, "written") from error


def _refuse_special(path: Path) -> None:
    """Refuse to replace anything but a regular file: renaming a file onto /dev/null would replace the device."""
    if not path.name or path.is_dir():
        raise UserError(f"{shown_path(path)}: is a directory. Name a file in it.")
    if path.exists() and not path.is_file():
        raise UserError(f"{shown_path(path)}: is a device, pipe or socket, not a regular file. Choose another path.")


def remove_leftovers(folder: Path, *, alone: bool = False) -> None:
    """Remove temporary files of writers that were killed.

    Args:
        folder: Directory to look in.
        alone: No other process writes to the directory, so that all temporary files are removed. Otherwise, files
            that are less than a day old are kept, unless the process on this machine that wrote them has ended.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(".")]
        for name in names:
            writer = _TEMPORARY.match(name)
            if writer and (alone or _is_dead(writer[1], int(writer[2]), folder / name)):
                with suppress(OSError):
                    (folder / name).unlink()


def remove_directory(path: Path, *, first: str | None = None) -> None:
    """Remove a directory with everything in it, if it exists.

    Args:
        path: The directory.
        first: Name of the file in it without which nothing else in it counts, so that a process that is killed
            meanwhile leaves nothing that is taken for a result.

    Raises:
        UserError: Something in it cannot be removed. Results that were to be discarded must not be taken for new ones.
    """
    try:
        if path.exists():
            if first is not None:
                (path / first).unlink(missing_ok=True)
            shutil.rmtree(path)
    except OSError as error:
        raise from_os_error(error, getattr(error, "filename", None) or path, "removed") from error


def _is_dead(machine: str, process: int, file: Path) -> bool:
    """Whether the writer of a temporary file has ended, or takes too long to be the process that has its number now."""
    with suppress(OSError):
        if time.time() - file.stat().st_mtime > _SECONDS_TO_FINISH:
            return True
    if machine != _machine() or os.name != "posix":
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):  # another user's process
        pass
    return False


@cache
def _machine() -> str:
    """Return a short name of the machine since it was started, or of the container, in which process numbers hold."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:  # not Linux
        boot, namespace = "", 0
    return hashlib.sha256(f"{platform.node()} {boot} {namespace}".encode()).hexdigest()[:6]


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, completely or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path`, completely or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table with the names of its columns as CSV to `path`, completely or not at all."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([columns, *rows])
    write_text(path, text.getvalue())


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: The file is missing, not a regular file, not JSON, larger than `MAX_JSON_BYTES`, or holds half of a
            surrogate pair, which cannot be written back.
    """
    path = Path(path)
    with reading(path):
        try:
            if path.exists() and not path.is_file():
                raise UserError(f"{shown_path(path)}: is not a regular file. Replace it with a JSON file.")
            if path.stat().st_size > MAX_JSON_BYTES:
                raise UserError(
                    f"{path}: larger than {MAX_JSON_BYTES // 2**20} MB. Replace it with the right JSON file."
                )
            text = path.read_text(encoding="utf-8").removeprefix("\ufeff")  # editors on Windows write this mark
            content = json.loads(text)
        except FileNotFoundError:
            raise UserError(f"{shown_path(path)}: no such file.") from None
        except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, too long a number, too deep a nesting
            if is_name_error(error):
                raise
            raise UserError(f"{path}: not valid JSON ({error}). Fix or replace the file.") from error
    if re.search(r"\\u[dD][89a-fA-F]", text):
        try:
            json.dumps(content, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise UserError(f"{path}: contains a character that is not valid Unicode. Remove it.") from error
    return content


def read_record(
    kind: "type[Record]", path: Path, *, remedy: str, fault: str = "damaged", version: int | None = None
) -> "Record":
    """Read a JSON file as a pydantic model.

    Args:
        kind: The model.
        path: The file.
        remedy: What the user can do if the content is wrong, in one or more sentences.
        fault: What the message calls wrong content.
        version: Version of the format that the file must have; None if the format has no versions.

    Raises:
        UserError: The file cannot be read, has another version, or its content does not fit the model.
    """
    from pydantic import ValidationError

    content = read_json(path)
    if version is not None and isinstance(content, dict) and content.get("version") != version:
        raise UserError(
            f"{path}: has version {content.get('version')}, but this program reads version {version}. {remedy}"
        )
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {fault} ({first_fault(error)}). {remedy}") from error
