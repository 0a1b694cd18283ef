"""Run several commands side by side on this machine, each with its own GPUs and cores."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from autocrossdim.system.console import RELAYED, logger, relay
from autocrossdim.system.errors import Interrupted, UserError
from autocrossdim.system.processes import die_with_parent
from autocrossdim.system.signals import on_request

LAST_LINES = 10  # of a failed command, shown again at the end
SECONDS_TO_END = 60.0  # given to commands to write a checkpoint; a step of a large network takes seconds


@dataclass(frozen=True)
class Slot:
    """Share of this machine for one command at a time.

    Attributes:
        gpus: Names of the GPUs as in CUDA_VISIBLE_DEVICES; if empty, the variable is left unchanged.
        cores: Numbers of the cores; if empty, all cores may be used.
    """

    gpus: tuple[str, ...] = ()
    cores: frozenset[int] = frozenset()


def visible_gpus(device: str) -> list[str]:
    """Return the GPUs available for `--device`, named as in CUDA_VISIBLE_DEVICES."""
    if device not in ("auto", "cuda"):
        return []
    import torch

    names = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    count = torch.cuda.device_count()
    return names[:count] if names != [""] else [str(number) for number in range(count)]


def slots(count: int, gpus: Sequence[str], each: int = 1) -> list[Slot]:
    """Divide this machine into `count` slots with `each` GPUs and equal numbers of cores.

    If there are more slots than GPUs or cores, slots share them.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    divided = []
    for number in range(count):
        mine = [gpus[(number * each + k) % len(gpus)] for k in range(each)] if gpus else []
        share = cores[number::count] or cores[number % len(cores) :][:1] if cores else []
        divided.append(Slot(tuple(mine), frozenset(share)))
    return divided


def run_together(commands: Mapping[str, Sequence[str]], slots: Sequence[Slot]) -> None:
    """Run all commands, one per slot at a time; their output is shown line by line, prefixed with the command's name.

    A command that fails does not stop the others. Ctrl-C, SIGTERM and SIGUSR1 stop all of them: each receives SIGTERM
    and has time to write a checkpoint. On Linux, no process survives even if this one is killed.

    Args:
        commands: Command lines by the names under which they are shown.
        slots: Shares of the machine.

    Raises:
        UserError: Commands failed; the message shows their last lines.
        Interrupted: SIGTERM or SIGUSR1 arrived.
    """
    free: SimpleQueue[Slot] = SimpleQueue()
    for slot in slots:
        free.put(slot)
    running: set[subprocess.Popen[str]] = set()
    starting = threading.Lock()
    stopping = False
    failures: list[str] = []

    # Linux ends a process with the thread that started it, so that thread stays until the process has ended.
    def run(name: str, words: Sequence[str]) -> None:
        slot = free.get()
        with starting:
            if stopping:
                return
            process = _start(words, slot)
            running.add(process)
        last: deque[str] = deque(maxlen=LAST_LINES)
        for line in process.stdout or ():
            last.append(line.rstrip())
            relay(f"{name}: {line.rstrip()}")
        code = process.wait()
        running.discard(process)
        if code != 0 and not stopping:
            failures.append("\n    ".join([f"{name} {_ending(code)}", *last]))
        free.put(slot)

    pool = ThreadPoolExecutor(len(slots))
    with on_request(_stop):
        try:
            for future in [pool.submit(run, name, words) for name, words in commands.items()]:
                future.result()
        except BaseException:
            with starting:
                stopping = True
            _end(list(running))
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    if failures:
        raise UserError(f"{len(failures)} of {len(commands)} failed; the others are complete.\n" + "\n".join(failures))


def _start(words: Sequence[str], slot: Slot) -> "subprocess.Popen[str]":
    parent = os.getpid()

    def prepare() -> None:
        die_with_parent(parent)
        if slot.cores:
            os.sched_setaffinity(0, slot.cores)

    environment = {**os.environ, "PYTHONUNBUFFERED": "1", RELAYED: str(logger.level)}
    if slot.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ",".join(slot.gpus)
    return subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        env=environment,
        start_new_session=True,  # Ctrl-C reaches this process only, which then requests checkpoints
        preexec_fn=prepare if sys.platform == "linux" else None,
    )


def _end(processes: Sequence["subprocess.Popen[str]"]) -> None:
    """Terminate processes, and kill those that do not end in time; a second request to stop kills them at once."""
    try:
        for process in processes:
            process.terminate()
        until = time.monotonic() + SECONDS_TO_END
        for process in processes:
            process.wait(max(0.0, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process in processes:
            process.kill()


def _stop(request: signal.Signals) -> None:
    """Raise Interrupted on a request to stop, as Ctrl-C raises KeyboardInterrupt."""
    raise Interrupted(f"Stopped by {request.name}.")


def _ending(code: int) -> str:
    """Describe how a process ended."""
    return f"was killed by {signal.Signals(-code).name}:" if code < 0 else f"ended with exit code {code}:"
