"""What is told to the person at the keyboard."""

from typing import TYPE_CHECKING

from autocrossdim.system.text import printable

if TYPE_CHECKING:
    from pydantic import ValidationError  # not imported by `--help`


class UserError(Exception):
    """A fault the user can mend: its message names the file or option, what is wrong and what to do.

    The command line prints it as one line and ends with exit code 2; no traceback is shown.
    """


class Interrupted(Exception):
    """Training was asked to stop (SIGTERM, SIGUSR1) and has written a checkpoint; the same command goes on from it.

    The command line ends with exit code 143, which job schedulers read as "ended by SIGTERM".
    """


def first_fault(error: "ValidationError") -> str:
    """Where and what the first of pydantic's faults is, in one line."""
    first = error.errors()[0]
    where = "".join(f"{part}." for part in first["loc"])
    return printable(f"{where[:-1]}: {first['msg']}" if where else first["msg"])
