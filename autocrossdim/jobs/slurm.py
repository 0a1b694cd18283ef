"""Jobs on a SLURM cluster, through submitit.

A job that reaches its time limit or is pre-empted is queued again and resumes from its checkpoint:

    SLURM                         the job                                   training
    USR2, before the time limit   checkpoint(): SIGTERM to the training     writes a checkpoint, ends with 143
                                  alone; submitit queues the job again
    SIGTERM to every process      nothing                                   writes a checkpoint, ends with 143
      requeued or cancelled       ends                                      (SLURM knows what comes next)
      pre-empted, grace period    queues itself again
"""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from autocrossdim.system.console import say
from autocrossdim.system.errors import UserError

INTERRUPTED = 143  # exit code of a command that was asked to stop and wrote a checkpoint
# Times that a job may reach its time limit: training ends anyway, unless the limit is too short for any progress.
TIME_LIMITS = 1000
OURS = ("job-name", "output", "error", "open-mode", "signal", "array", "requeue", "wrap", "ntasks", "nodes")


@dataclass
class Job:
    """A command as a job that can be queued again.

    Attributes:
        words: Words of the command line.
    """

    words: Sequence[str]
    _process: "subprocess.Popen[bytes] | None" = field(default=None, init=False, repr=False)

    def __call__(self) -> None:
        """Run the command; called by submitit on the node."""
        self._process = subprocess.Popen(
            self.words,
            # With this name, lightning does not expect SLURM to have started all processes of the training.
            env={**os.environ, "SLURM_JOB_NAME": "interactive"},
            preexec_fn=_ignore_usr2,
        )
        code = self._process.wait()
        # A job that ends within its grace period counts as failed and would not be queued again.
        if code in (INTERRUPTED, -signal.SIGTERM) and _state() == "RUNNING":
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        if code != 0:
            sys.exit(code if code > 0 else 128 - code)

    def checkpoint(self) -> Any:
        """Let the command write its checkpoint, and return the job to queue; called by submitit in a signal handler."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            self._process.terminate()
            with suppress(ChildProcessError):
                # Not Popen.wait: the interrupted frame is inside it and holds its lock.
                os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        return DelayedSubmission(Job(self.words))


def _ignore_usr2() -> None:
    """Ignore SIGUSR2: SLURM sends it to every process of a job, but only submitit handles it."""
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)


def _state() -> str:
    """Return the SLURM state of the job of this process, such as RUNNING or COMPLETING."""
    shown = subprocess.run(
        ["scontrol", "show", "job", os.environ["SLURM_JOB_ID"]], capture_output=True, text=True, check=False
    )
    found = re.search(r"JobState=(\w+)", shown.stdout)
    return found[1] if found else "UNKNOWN"


def submit(jobs: Mapping[str, Job], folder: Path, options: Mapping[str, str]) -> None:
    """Submit jobs; each waits for queued or running jobs of the same name and directory.

    Args:
        jobs: Jobs by name.
        folder: Directory for submission scripts and logs, visible to the nodes.
        options: Options of `sbatch` by their long names; `time` is required.

    Raises:
        UserError: SLURM or submitit is missing, or `sbatch` does not accept an option.
    """
    if missing := [program for program in ("sbatch", "srun") if shutil.which(program) is None]:
        raise UserError(
            f"--slurm: `{missing[0]}` was not found. Run this command on a login node of the cluster, or without "
            "--slurm."
        )
    try:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError
    except ImportError:
        raise UserError("--slurm needs submitit: pip install 'autocrossdim[slurm]'.") from None
    options = {key.replace("_", "-"): value for key, value in options.items()}
    for key in OURS:
        if key in options:
            raise UserError(f"--slurm {key}=...: this option is set automatically. Omit it.")
    if "time" not in options:
        raise UserError("--slurm: time=... is required, such as time=12:00:00. Training that takes longer is requeued.")
    executor = SlurmExecutor(folder.resolve(), max_num_timeout=TIME_LIMITS)
    executor.update_parameters(
        stderr_to_stdout=True,
        # srun no longer inherits it from sbatch (SLURM 22.05).
        setup=['[ -z "$SLURM_CPUS_PER_TASK" ] || export SRUN_CPUS_PER_TASK="$SLURM_CPUS_PER_TASK"'],
        additional_parameters={
            **options,
            "requeue": True,
            # Two jobs never write into one directory: SLURM runs jobs of the same name and user one after another.
            "dependency": ",".join(["singleton", *filter(None, [options.get("dependency")])]),
        },
    )
    place = sha256(str(folder.resolve()).encode()).hexdigest()[:6]
    submitted: list[str] = []
    for name, job in jobs.items():
        executor.update_parameters(job_name=f"{name}-{place}".replace(" ", "_"))
        try:
            with redirect_stderr(io.StringIO()):  # submitit would also print the error
                number = executor.submit(job).job_id
        except (FailedJobError, FailedSubmissionError) as error:
            before = f"Submitted before it: {', '.join(submitted)}." if submitted else "Nothing was submitted."
            raise UserError(f"--slurm: {name} was rejected. {before} {' '.join(str(error).split())}") from error
        submitted.append(number)
        say(f"{name}: job {number}, log {folder / f'{number}_0_log.out'}")
