"""Files that are either whole or not there: everything is written to a temporary name, then renamed."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from autocrossdim.system.errors import UserError


@contextmanager
def written_whole(path: Path, *failures: type[Exception]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` on success, delete it on failure.

    The temporary name keeps the file's endings, because image writers choose the format by them, and
    starts with a dot, so that no listing of cases takes it for one.

    Args:
        path: what is to be there in the end.
        failures: what the writer raises on a full disk, if not OSError.

    Raises:
        UserError: the folder cannot be written to (read-only, full disk).
    """
    path = Path(path)
    expected: tuple[type[Exception], ...] = (OSError, *failures)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with temporary.open("rb+") as file:  # Windows flushes only what may be written to
            os.fsync(file.fileno())  # else a power cut may leave the new name with nothing behind it
        temporary.replace(path)
    except expected as error:
        reason = (getattr(error, "strerror", None) or str(error)).partition("\n")[0]
        raise UserError(f"{path}: cannot be written ({reason}). Check space and permissions.") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left in a folder in which nobody else is writing now."""
    for file in folder.glob(".????????.*"):
        with suppress(OSError):
            file.unlink()


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON to `path`, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file.") from None
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, numbers or nesting beyond all sense
        raise UserError(f"{path}: not valid JSON ({error}).") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
