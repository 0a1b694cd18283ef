"""What is told to the person at the keyboard."""


class UserError(Exception):
    """A fault the user can mend: its message names the file or option, what is wrong and what to do.

    The command line prints it as one line and ends with exit code 2; no traceback is shown.
    """
