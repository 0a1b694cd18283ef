"""A few real training steps, in a process of their own: how long they take and, on a GPU, what memory they need.

`python -m planners.trial` reads a request as JSON from stdin and answers with JSON on stdout. A process of its own,
because a step that does not fit must not take the planner down, nor leave anything on the GPU.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any

import torch
from pydantic import BaseModel

from autocrossdim.networks.build import build_network
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.device import choose_device, memory_format_for
from planners.memory import StepMemory

STEPS = 3
SECONDS_TO_WAIT = 120.0
CPU_MULTIPLY_ADDS = 5e9  # forward, a step: what a CPU is asked to try; a larger step's time is scaled up from it
SAMPLES, SMALLEST_SIDE = 2, 16  # and what it is asked at least


class Trial(BaseModel):
    """What to run: a network, a patch (voxels an axis), a batch, and whether convolutions run in 16 bits."""

    network: NetworkPlan
    patch: tuple[int, ...]
    batch: int
    mixed: bool


class Outcome(BaseModel):
    """What came of it.

    Attributes:
        seconds: of one step, the first one left out; None if none was finished.
        peak_bytes: allocated on the GPU; None on a CPU.
        fits: False if the GPU ran out of memory.
    """

    seconds: float | None = None
    peak_bytes: int | None = None
    fits: bool = True


def try_out(memory: StepMemory, patch: tuple[int, ...], batch: int) -> Outcome:
    """Run a step for real and return its time, scaled to the patch and batch, and on a GPU its peak memory.

    A CPU is given a smaller step where the real one would take long.
    """
    tried, samples = patch, batch
    if not torch.cuda.is_available():
        samples = SAMPLES
        while memory.multiply_adds(tried) * samples > CPU_MULTIPLY_ADDS and min(tried) > SMALLEST_SIDE:
            tried = tuple(max(SMALLEST_SIDE, n // 2) for n in tried)
    outcome = attempt(Trial(network=memory.plan, patch=tried, batch=samples, mixed=memory.mixed))
    larger = memory.multiply_adds(patch) * batch / (memory.multiply_adds(tried) * samples)
    return outcome.model_copy(update={"seconds": None if outcome.seconds is None else outcome.seconds * larger})


def attempt(trial: Trial) -> Outcome:
    """Run a trial in a process of its own; the outcome has no time if two minutes were not enough."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        result = subprocess.run(
            [sys.executable, "-m", "planners.trial"],
            input=trial.model_dump_json(),
            capture_output=True,
            text=True,
            timeout=SECONDS_TO_WAIT,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Outcome()
    if result.returncode != 0:
        raise RuntimeError(f"The trial of a training step failed:\n{result.stderr}")
    return Outcome.model_validate_json(result.stdout.splitlines()[-1])


def _run(trial: Trial) -> Outcome:
    device = choose_device("auto")
    layout = memory_format_for(trial.network.dims)
    network: Any = build_network(trial.network, None).to(device, memory_format=layout)
    optimizer = torch.optim.NAdam(network.parameters())
    shape = (trial.batch, trial.network.in_channels, *trial.patch)
    times = []
    try:
        for _ in range(STEPS):
            started = time.monotonic()
            image = torch.randn(shape, device=device).contiguous(memory_format=layout)
            target = torch.randint(trial.network.num_outputs, (trial.batch, *trial.patch), device=device)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=trial.mixed and device.type == "cuda"):
                logits = network(image)
            logits = logits[0] if isinstance(logits, list) else logits
            # Regions have as many outputs as classes have: the cost is the same.
            loss = torch.nn.functional.cross_entropy(logits.float(), target) - logits.float().softmax(1).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()
            times.append(time.monotonic() - started)
    except torch.cuda.OutOfMemoryError:
        return Outcome(fits=False)
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return Outcome(seconds=min(times[1:]), peak_bytes=peak)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_run(Trial.model_validate_json(sys.stdin.read())).model_dump()) + "\n")
