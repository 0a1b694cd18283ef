"""A few real training steps in a separate process: the time of a step and, on a GPU, its peak memory.

`python -m planners.trial` reads a request as JSON from stdin and writes the outcome as JSON to stdout. In a separate
process, a step that does not fit cannot take the planner down, and leaves nothing on the GPU.
"""

import json
import os
import subprocess
import sys
import time
from math import prod

import torch
from pydantic import BaseModel

from autocrossdim.networks.build import build_network
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.device import (
    choose_device,
    memory_format_for,
    peak_memory,
    precision_for,
    require_training,
    reset_peak_memory,
    synchronize,
)
from autocrossdim.system.lightning import Fabric
from planners.memory import StepMemory
from trainers.step import make_loss, make_optimizer, training_step

STEPS = 3
SECONDS_TO_WAIT = 120.0  # for a trial in a separate process
CPU_MULTIPLY_ADDS = 5e9  # of the forward pass of a step tried on a CPU; the time of larger steps is extrapolated
CPU_SAMPLES, CPU_SMALLEST_SIDE = 2, 16  # batch size of a step tried on a CPU; sides down to 16 voxels are kept


class Trial(BaseModel):
    """A training step to try.

    Attributes:
        network: Network to build.
        patch: Patch size in voxels.
        batch: Patches per step.
        mixed: Whether convolutions run in 16 bits.
        regions: Whether outputs are regions, which may overlap, rather than exclusive classes.
        device: Device to run it on.
        channels_last: Whether features are in the channels-last memory format, as they are in training.
        compiled: Whether `torch.compile` is used.
    """

    network: NetworkPlan
    patch: tuple[int, ...]
    batch: int
    mixed: bool
    regions: bool = False
    device: str = "auto"
    channels_last: bool = True
    compiled: bool = False


class Outcome(BaseModel):
    """Outcome of a trial.

    Attributes:
        seconds: Time of one step, the first one excluded; None if the trial was not run or timed out.
        peak_bytes: Peak memory allocated on the GPU; None on a CPU.
        fits: False if the GPU ran out of memory.
    """

    seconds: float | None = None
    peak_bytes: int | None = None
    fits: bool = True


def try_out(memory: StepMemory, patch: tuple[int, ...], batch: int) -> Outcome:
    """Run a training step and return its time and, on a GPU, its peak memory.

    If the step would take long on a CPU, a smaller one is run, and its time is scaled by the multiply-adds.

    Args:
        memory: Memory of the network's training step.
        patch: Patch size in voxels.
        batch: Patches per step.
    """
    on_cpu = choose_device("auto").type == "cpu"
    tried, samples = (_affordable(memory, patch), CPU_SAMPLES) if on_cpu else (patch, batch)
    outcome = attempt(
        Trial(network=memory.plan, patch=tried, batch=samples, mixed=memory.mixed, regions=memory.regions)
    )
    larger = memory.multiply_adds(patch) * batch / (memory.multiply_adds(tried) * samples)
    return outcome.model_copy(update={"seconds": None if outcome.seconds is None else outcome.seconds * larger})


def _affordable(memory: StepMemory, patch: tuple[int, ...]) -> tuple[int, ...]:
    """Return the patch, halved until a CPU can run a step on it in a few seconds or its sides are small."""
    smallest = [min(n, CPU_SMALLEST_SIDE) for n in patch]
    if memory.plan.kind == "ds":
        smallest[0] = patch[0]  # it is built for one depth
    if memory.plan.kind == "plain":
        # Instance norm needs two voxels at the coarsest level.
        smallest[-1] = max(smallest[-1], 2 * prod(stride[-1] for stride in memory.plan.strides))
    while CPU_SAMPLES * memory.multiply_adds(patch) > CPU_MULTIPLY_ADDS and patch != tuple(smallest):
        patch = tuple(max(least, n // 2) for least, n in zip(smallest, patch, strict=True))
    return patch


def attempt(trial: Trial, *, seconds: float = SECONDS_TO_WAIT) -> Outcome:
    """Run a trial in a separate process; after `seconds` it is stopped, and the outcome has no time."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        result = subprocess.run(
            [sys.executable, "-m", "planners.trial"],
            input=trial.model_dump_json(),
            capture_output=True,
            text=True,
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome()
    if result.returncode != 0:
        raise RuntimeError(f"The trial of a training step failed:\n{result.stderr}")
    return Outcome.model_validate_json(result.stdout.splitlines()[-1])


def run_here(trial: Trial) -> Outcome:
    """Run a trial in this process."""
    device = choose_device(trial.device)
    require_training(device)
    reset_peak_memory(device)
    fabric = Fabric(
        accelerator=device.type,
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=precision_for(device) if trial.mixed else "32-true",  # type: ignore[arg-type]
    )
    layout = memory_format_for(trial.network.dims) if trial.channels_last else torch.contiguous_format
    network = build_network(trial.network, None).to(memory_format=layout)
    if trial.compiled:
        network.compile()
    loss = make_loss(regions=trial.regions)
    image_shape = (trial.batch, trial.network.in_channels, *trial.patch)
    outputs = (trial.network.num_outputs,) if trial.regions else ()
    times = []
    try:
        model, optimizer = fabric.setup(network, make_optimizer(network, learning_rate=1e-3))
        weights = [parameter.detach() for parameter in network.parameters()]
        average = [values.clone() for values in weights]  # training averages weights, and the small buffers
        image = torch.randn(image_shape, device=device).contiguous(memory_format=layout)
        highest = 2 if trial.regions else trial.network.num_outputs
        target = torch.randint(highest, (trial.batch, *outputs, *trial.patch), device=device)
        batches = [(image, target), (image.clone(), target.clone())]  # training also holds the next one
        for step in range(STEPS):
            started = time.monotonic()
            training_step(model, loss, optimizer, [batches[step % 2]], engine=fabric)
            torch._foreach_lerp_(average, weights, 0.1)
            synchronize(device)
            times.append(time.monotonic() - started)
    except torch.cuda.OutOfMemoryError:
        return Outcome(fits=False)
    return Outcome(seconds=min(times[1:]), peak_bytes=peak_memory(device))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run_here(Trial.model_validate_json(sys.stdin.read())).model_dump()) + "\n")
