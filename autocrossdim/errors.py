"""What is told to the person at the keyboard."""


class UserError(Exception):
    """A fault the user can mend: its message names the file or option, what is wrong and what to do.

    The command line prints it as one line and ends with exit code 2; no traceback is shown.
    """


class Interrupted(Exception):
    """Training was asked to stop (SIGTERM, SIGUSR1) and has written a checkpoint; the same command goes on from it.

    The command line ends with exit code 143, which job schedulers read as "ended by SIGTERM".
    """
