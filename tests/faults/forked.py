"""The command line in forked children of a process that has imported everything: a run takes as long as its work."""

import fcntl
import gc
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pkgutil import walk_packages

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

import torch

from autocrossdim.cli import main

LATER = ("matplotlib.backends.backend_agg", "torch.utils._sympy.functions")  # modules that are imported when needed

Words = Sequence[str]


@dataclass
class Ended:
    """How a command ended: its exit code (negative: the signal), and what it printed on stderr."""

    code: int
    said: str


class Forked:
    """Runs the command line in forked children."""

    def __init__(self) -> None:
        _import_everything()

    def run(
        self, words: Words, prepare: Callable[[], object] = lambda: None, *, kill_after: float | None = None
    ) -> Ended:
        """Run a command.

        Args:
            words: Command line.
            prepare: Called in the child before the command.
            kill_after: Time in seconds after which the child is killed, if it still runs.
        """

        def command() -> int:
            prepare()
            return _call(words)

        return self.call(command, kill_after=kill_after)

    def call(self, function: Callable[[], int | None], *, kill_after: float | None = None) -> Ended:
        """Call a function in a child; the number it returns is the exit code."""
        # Not a file: it would count as one whose size is limited.
        reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 2**20)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.dup2(writer, 2)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "w"), write_through=True) for n in (1, 2))
                code = function() or 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        deadline = None if kill_after is None else time.monotonic() + kill_after
        try:
            while (ended := os.waitpid(child, 0 if deadline is None else os.WNOHANG))[0] == 0:
                if deadline is not None and time.monotonic() > deadline:
                    os.kill(child, signal.SIGKILL)
                    deadline = None
                time.sleep(0.001)
        except KeyboardInterrupt:  # the child would write while its directory is removed
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        os.close(writer)
        with os.fdopen(reader, encoding="utf-8", errors="replace") as said:
            return Ended(os.waitstatus_to_exitcode(ended[1]), said.read())


def _call(words: Words) -> int:
    sys.argv = ["autocrossdim", *words]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    return 1


def _import_everything() -> None:
    for package in ("autocrossdim", "planners", "trainers"):
        for module in walk_packages(import_module(package).__path__, f"{package}."):
            if not module.name.endswith("__main__"):
                import_module(module.name)
    for name in LATER:
        import_module(name)
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
