"""Errors whose message is meant for the user."""

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from autocrossdim.system.text import printable, shown_path

if TYPE_CHECKING:
    from pydantic import ValidationError  # not imported by `--help`


class UserError(Exception):
    """An error the user can fix: the message names the file or option, what is wrong and what to do.

    The command line prints it as one line and exits with code 2, without a traceback.
    """


class Interrupted(Exception):
    """Training was asked to stop (SIGTERM, SIGUSR1) and has written a checkpoint; the same call resumes from it.

    A call with `restart` would start over; without it, the folds that it still had to discard start over all the same.
    The command line says how to resume, and exits with code 143, which job schedulers read as "ended by SIGTERM".
    """


_NOT_A_DIRECTORY = ("a part of the path is a file, not a directory", "Choose another path.")
_FULL = ("the disk is full", "Free some space, then run the same command again.")
_DENIED = ("permission denied", "Ask its owner for access, or choose another location.")
_BROKEN_DRIVE = ("the drive does not respond", "Check the drive or network connection, then try again.")

# What the operating system reports, in words: reason and remedy.
_EXPLANATIONS = {
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.ENOENT: ("no such file or directory", "Check the path."),
    errno.ENOTDIR: _NOT_A_DIRECTORY,
    errno.EEXIST: _NOT_A_DIRECTORY,  # raised by mkdir
    errno.EISDIR: ("it is a directory, not a file", "Name a file."),
    errno.ENAMETOOLONG: ("the path or a name in it is too long", "Choose a shorter one."),
    errno.ELOOP: ("its symbolic links form a loop", "Remove or replace the link."),
    errno.EROFS: ("the file system is read-only", "Choose another location."),
    errno.ENOSPC: _FULL,
    errno.EFBIG: ("the file would exceed the size limit", "Raise the limit (ulimit -f) or choose another location."),
    errno.EIO: _BROKEN_DRIVE,
    getattr(errno, "EDQUOT", errno.ENOSPC): ("the disk quota is exceeded", _FULL[1]),
    getattr(errno, "ESTALE", errno.EIO): _BROKEN_DRIVE,
    errno.EMFILE: ("too many files are open", "Raise the limit (ulimit -n) or use fewer processes."),
}


def from_os_error(error: Exception, path: Path | str | None = None, action: str = "accessed") -> UserError:
    """Return the message for an error that the operating system raised on a path.

    Args:
        error: an OSError, a ValueError for which `is_name_error` holds, or what a library raises instead.
        path: path to name (default: the one the error names).
        action: what could not be done with the path, as a participle: "read", "written".

    Example:
        >>> str(from_os_error(PermissionError(13, "Permission denied", "a.json"), action="read"))
        'a.json: cannot be read (permission denied). Ask its owner for access, or choose another location.'
    """
    if path is None:
        path = getattr(error, "filename", None)
    reason, remedy = _explain(error)
    if path is None:
        return UserError(f"{reason[:1].upper()}{reason[1:]}. {remedy}")
    if getattr(error, "errno", None) == errno.ENOENT:
        return UserError(f"{shown_path(path)}: {reason}. {remedy}")
    return UserError(f"{shown_path(path)}: cannot be {action} ({reason}). {remedy}")


def _explain(error: Exception) -> tuple[str, str]:
    """Return reason and remedy."""
    if is_name_error(error):
        return "its name contains invalid characters", "Choose another name."
    if isinstance(error, OSError) and error.errno in _EXPLANATIONS:
        return _EXPLANATIONS[error.errno]
    reason = (getattr(error, "strerror", None) or str(error) or type(error).__name__).partition("\n")[0]
    return printable(reason.rstrip(".")), "Check free space and permissions."


def is_name_error(error: Exception) -> bool:
    """Whether Python refused a path because of its name: a null character, or a half of a surrogate pair."""
    return isinstance(error, UnicodeEncodeError) or (isinstance(error, ValueError) and "embedded null" in str(error))


# Pydantic's complaints in words for readers who know JSON, not pydantic.
_FAULTS = {
    "extra_forbidden": "unknown entry",
    "missing": "missing",
    "string_type": "must be a string",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "dict_type": "must be a dictionary",
    "model_type": "must be a dictionary",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
}


# The same complaints where typer has turned them into text.
_SENTENCES = {
    "Value error, ": "",
    "Input should be a valid integer, unable to parse string as an integer": "must be a whole number",
    "Input should be a valid number, unable to parse string as a number": "must be a number",
    "Unable to parse input string as an integer, exceeded maximum size": "must be a smaller whole number",
    "Input should be ": "must be ",
}


def in_words(message: str) -> str:
    """Return a message of the command line's library in words for readers who do not know pydantic."""
    for sentence, words in _SENTENCES.items():
        message = message.replace(sentence, words)
    return message


def first_fault(error: "ValidationError") -> str:
    """Return the first of pydantic's complaints in one line: the field and what is wrong with it."""
    first = error.errors()[0]
    where = "".join(f"{part}." for part in first["loc"])
    known = _FAULTS.get(first["type"])
    if known is None:
        fault = first["msg"].replace("Input should be", "must be")
    else:
        fault = known.format_map(first.get("ctx", {}))
    return printable(f"{where[:-1]}: {fault}" if where else fault)
