"""Locks that keep two processes from writing to the same directory at the same time."""

import errno
import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from autocrossdim.system.console import say
from autocrossdim.system.errors import UserError, from_os_error
from autocrossdim.system.text import shown_path

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"  # lock file of a directory, inside it; the ending of the lock file of anything else, beside it
SECONDS_TO_END = 2.0  # processes that a killed one has started end with it, but not at the same moment
SECONDS_TO_EXPIRE = 180.0  # NFS servers keep the lock of a machine that has crashed until its lease ends (Linux: 90 s)
SECONDS_BETWEEN_TRIES = 0.1

_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_ATTEMPTS = 100  # to create the lock file, while other processes remove and create its directory


@contextmanager
def locked(lock: Path, subject: Path, *, wait: bool = False, shared: bool = False) -> Iterator[None]:
    """Hold a lock during the block; only one process can hold it at a time, or several that share it.

    The operating system releases the lock when the process ends in any way, so a lock file that a killed process left
    behind does not matter. A directory that cannot be written to is not locked, nor is one on a file system without
    locks (some network file systems). On Windows, nothing is locked.

    Args:
        lock: Lock file; it exists while the block runs. Its directory is created, and removed if it stays empty.
        subject: Directory or file to name in messages.
        wait: Wait until the other process has finished, instead of failing.
        shared: Share the lock with other processes that share it.

    Raises:
        UserError: Another process holds the lock and does not share it, or the file cannot be created or opened.
    """
    if sys.platform == "win32":
        yield
        return
    created = [folder for folder in lock.parents if not folder.exists()]
    try:
        file = _acquire(lock, subject, wait, shared)
    except OSError as error:
        raise from_os_error(error, lock, "written") from error
    try:
        yield
    finally:
        if file is not None:
            with suppress(OSError):
                # While it is held: another process must not lose the file it has just locked, or still shares.
                if not shared or _lock(file):
                    lock.unlink()
            os.close(file)
        with suppress(OSError):  # nothing was written to the directory, or something else stays in it
            for folder in created:
                folder.rmdir()


def _acquire(lock: Path, subject: Path, wait: bool, shared: bool) -> int | None:
    """Return the descriptor of the locked file, which names this process; None if the directory is read-only."""
    start, is_said = time.monotonic(), False
    while True:
        file = _open(lock)
        if file is None:
            return None
        try:
            if _lock(file, shared=shared) and _is_present(lock, file):
                with suppress(OSError):  # on a full disk, or in a file of another user, the lock works without a name
                    os.ftruncate(file, 0)
                    os.write(file, f"process {os.getpid()} on {platform.node()}".encode())
                return file
            holder = os.pread(file, 1000, 0).decode(errors="replace") or "another process"
        except BaseException:
            os.close(file)
            raise
        os.close(file)
        is_here = not holder.startswith("process ") or holder.endswith(f" on {platform.node()}")
        patience = SECONDS_TO_END if is_here else max(SECONDS_TO_END, SECONDS_TO_EXPIRE)
        waited = time.monotonic() - start
        if waited > patience and not wait:
            raise UserError(
                f"{shown_path(subject)}: {holder} is writing to it. Wait until that process has ended, then run "
                "the same command again."
            )
        if waited > SECONDS_TO_END and not is_said:
            limit = "" if wait else f" For at most {patience / 60:.0f} minutes: it may have been killed."
            say(f"Waiting for {holder}, which is writing to {shown_path(subject)}.{limit}")
            is_said = True
        time.sleep(SECONDS_BETWEEN_TRIES)


def _open(lock: Path) -> int | None:
    """Open the lock file, and create it if it does not exist; return None if the directory is read-only."""
    for attempt in range(_ATTEMPTS):
        try:
            lock.parent.mkdir(parents=True, exist_ok=True)
            return os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:  # the last holder has just removed the directory
            if attempt == _ATTEMPTS - 1:
                raise
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            effective = os.access in os.supports_effective_ids
            if not lock.exists() and not os.access(lock.parent, os.W_OK, effective_ids=effective):
                return None
            with suppress(FileNotFoundError):  # the last holder has just removed it
                return os.open(lock, os.O_RDONLY)  # it belongs to another user
    raise UserError(f"{shown_path(lock)}: cannot be created. Check the permissions of its directory.")


def _lock(file: int, *, shared: bool = False) -> bool:
    """Lock an open file, unless another process holds it; return whether it is locked, as far as that is possible."""
    assert sys.platform != "win32"
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def _is_present(lock: Path, file: int) -> bool:
    """Whether the path still is the file that was opened: the last holder may have removed it in the meantime."""
    try:
        return os.path.samestat(lock.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
