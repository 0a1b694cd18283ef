"""Failpoints: every change of a file that Python makes is a boundary, at which a process can be killed or refused.

Writes by libraries in C and C++ (arrays of blosc2, images of ITK, checkpoints of torch) do not pass through Python.
They are interrupted by a limit on the size of a file instead: `limit_file_size`.
"""

import builtins
import io
import os
import resource
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

WITHOUT_NAME = ("write", "fsync")  # calls on an open file, whose errors name no path


@dataclass
class Failpoints:
    """Counts the calls that change files below a directory, and makes one of them fail.

    Attributes:
        root: Directory; other files do not count.
        record: File outside `root` to which each boundary is appended.
        fail_at: Number of the boundary to fail at, from 0; None counts only.
        error: Error number to raise there; None kills the process.
    """

    root: Path
    record: Path
    fail_at: int | None = None
    error: int | None = None
    count: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def install(self) -> None:
        """Replace the functions that change files, in this process and for good."""
        self.prefix = os.path.realpath(self.root) + os.sep
        self.log = os.open(self.record, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.write_log = os.write
        for name in ("replace", "rename", "link", "symlink"):
            self._wrap(name, path=lambda source, target, *_, **__: target)
        for name in ("unlink", "remove", "mkdir", "rmdir"):
            self._wrap(name, path=lambda path, *_, **__: path)
        for name in ("write", "fsync", "ftruncate"):
            self._wrap(name, path=lambda file, *_: f"/proc/self/fd/{file}")
        os_open, opened = os.open, io.open

        def open_descriptor(path: Any, flags: int, *rest: Any, **options: Any) -> int:
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._reach("open", path, options.get("dir_fd"))
            return os_open(path, flags, *rest, **options)

        def open_file(path: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
            name = "reopen" if mode.startswith("r") else "open"
            is_ours = isinstance(path, (str, os.PathLike)) and set(mode) & set("wax+") and self._reach(name, path)
            file = opened(path, mode, *rest, **options)
            return _Watched(file, lambda: self._reach("write", path)) if is_ours else file

        os.open = open_descriptor
        builtins.open = io.open = open_file  # type: ignore[assignment]

    def _wrap(self, name: str, path: Callable[..., Any]) -> None:
        original = getattr(os, name)

        def call(*arguments: Any, **options: Any) -> Any:
            self._reach(name, path(*arguments, **options), options.get("dir_fd"))
            return original(*arguments, **options)

        setattr(os, name, call)

    def _reach(self, name: str, path: Any, folder: int | None = None) -> bool:
        """Count a boundary, if it concerns a file below the root, and fail if its turn has come."""
        place = os.fspath(path)
        if folder is not None:
            place = f"/proc/self/fd/{folder}/{place}"
        if place.startswith("/proc/self/fd/"):
            place = os.path.realpath(place)
        place = os.path.normpath(place)
        if not place.startswith(self.prefix) or _changes_nothing(name, place):
            return False
        with self.lock:
            number, self.count = self.count, self.count + 1
            self.write_log(self.log, f"{name} {place[len(self.prefix) :]}\n".encode())
        if number == self.fail_at:
            if self.error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            names = () if name in WITHOUT_NAME else (place,)
            raise OSError(self.error, os.strerror(self.error), *names)
        return True


def _changes_nothing(name: str, place: str) -> bool:
    """Whether a call fails, as its caller expects: a directory exists, or a file does not."""
    if name == "mkdir":
        return os.path.lexists(place)
    return name in ("unlink", "remove", "rmdir") and not os.path.lexists(place)


class _Watched:
    """A file object whose writes are boundaries."""

    def __init__(self, file: Any, reach: Callable[[], object]) -> None:
        self._file, self._reach = file, reach

    def write(self, content: Any) -> int:
        self._reach()
        written: int = self._file.write(content)
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Any:
        return iter(self._file)


def limit_file_size(limit: int, *, kill: bool) -> None:
    """Refuse, or be killed by, the first write of any library that makes a file larger than `limit` bytes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if kill:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
