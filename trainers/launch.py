"""Processes and devices of a run: one process, one per device, or those that torchrun has started."""

import logging
import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from multiprocessing.queues import SimpleQueue
from typing import Literal

import torch
from lightning_fabric.strategies.ddp import DDPStrategy
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException

from autocrossdim.system.device import choose_device, count, precision_for, require_training
from autocrossdim.system.errors import Interrupted, UserError
from autocrossdim.system.lightning import Fabric
from autocrossdim.system.processes import default_processes, processes_here, under_torchrun
from autocrossdim.system.signals import on_request
from autocrossdim.system.text import counted
from trainers.run import Run

# torch reports that channels-last gradients are copied, which concerns nobody.
warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
# Nor that it ends the other processes after an error.
logging.getLogger("torch.multiprocessing.spawn").setLevel(logging.ERROR)


def launch(job: Callable[[Fabric], None], run: Run) -> None:
    """Call a job with launched devices, in this process or in one process per device.

    Args:
        job: Trains the run; it is pickled where processes are started.
        run: The run, which says what devices to use.

    Raises:
        UserError: The devices are not available, there are more of them than patches in a batch, one of the processes
            was killed, or the job raised it.
        Interrupted: The job raised it.
    """
    world = _world(run)
    if world > 1 and not under_torchrun():
        _require_several(choose_device(run.task.device), world)
    if world > run.configuration.batch_size:
        raise UserError(
            f"--devices {world}: a batch of {run.configuration.batch_size} patches cannot be divided among that many. "
            "Use fewer devices, or plan with a larger --batch-size."
        )
    if world == 1 or under_torchrun():
        fabric = _fabric(run, world, "popen")
        fabric.launch()
        job(fabric)
        return
    errors: SimpleQueue[UserError] = multiprocessing.get_context("spawn").SimpleQueue()
    # Bound to its arguments, because fabric moves arguments to a device and fails for frozen dataclasses.
    bound = partial(_in_spawned_process, job=job, errors=errors)
    try:
        with on_request(_forward):
            interrupted = _fabric(run, world, "spawn").launch(bound)
    except ProcessException as error:  # holds the error of a process as text only
        if not errors.empty():
            raise errors.get() from None
        if not (isinstance(error, ProcessExitedException) and error.signal_name == "SIGKILL"):
            raise
        raise UserError(
            f"--devices {world}: one of the processes was killed by SIGKILL, often because memory ran out. Run the "
            "same command again to resume, if necessary with fewer devices or --set workers=0."
        ) from error
    if interrupted is not None:
        raise interrupted


def _require_several(device: torch.device, world: int) -> None:
    """Refuse to train on more GPUs than there are, or on several where one was named."""
    if device.type == "cpu":
        return
    if str(device) != device.type:
        raise UserError(
            f"--devices {world}: --device {device} names a single GPU. Use --device {device.type}; the environment "
            "variable CUDA_VISIBLE_DEVICES selects GPUs."
        )
    if world > count(device.type):
        raise UserError(f"--devices {world}: this machine has {counted(count(device.type), 'usable GPU')}. Use fewer.")


def _world(run: Run) -> int:
    """Return the number of processes that train together, one per device."""
    return int(os.environ["WORLD_SIZE"]) if under_torchrun() else run.task.devices


def _fabric(run: Run, world: int, start_method: Literal["popen", "spawn"]) -> Fabric:
    device = choose_device(run.task.device)
    require_training(device)
    several = world > 1
    here = processes_here(run.task.devices)
    ddp = DDPStrategy(
        start_method=start_method,
        timeout=timedelta(days=1),  # the others wait while the first one preprocesses or validates
        find_unused_parameters=run.settings.frozen_epochs > 0,  # a frozen encoder has no gradients
    )
    with warnings.catch_warnings():
        # Lightning recommends its own SLURM support wherever SLURM is installed.
        warnings.filterwarnings("ignore", "The `srun` command is available")
        return Fabric(
            accelerator=device.type,
            devices=[device.index or 0] if device.type == "cuda" and not several else here,
            num_nodes=world // here,
            strategy=ddp if several else "auto",
            precision=precision_for(device),  # type: ignore[arg-type]
        )


def _in_spawned_process(
    fabric: Fabric, job: Callable[[Fabric], None], errors: "SimpleQueue[UserError]"
) -> Interrupted | None:
    """Run the job; return a request to stop, on which all processes agree, and hand over errors for the user.

    Errors are raised as well: torch then ends the other processes, which may be waiting for this one.
    """
    os.environ["RANK"] = str(fabric.global_rank)
    torch.set_num_threads(max(1, default_processes() // fabric.world_size))
    try:
        job(fabric)
    except Interrupted as request:
        return request
    except UserError as error:
        errors.put(error)
        raise
    return None


def _forward(request: signal.Signals) -> None:
    """Forward a request to stop to the processes that train, which agree on a step and write a checkpoint."""
    for process in multiprocessing.active_children():
        if process.pid is not None:
            os.kill(process.pid, request)
