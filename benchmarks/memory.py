"""The computed memory of a training step against what it really takes.

    python benchmarks/memory.py [--output FILE]

On a GPU the measured figure is `torch.cuda.max_memory_allocated`. On a CPU it is the growth of the process's resident
memory, which also holds the libraries' workspaces and what the allocator keeps: each case runs in a process of its own,
after a tiny step that loads everything else.
"""

import argparse
import ctypes
import gc
import json
import platform
import subprocess
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from peak import forget_peak, peak, resident

from autocrossdim.networks.build import build_network
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.device import memory_format_for
from planners.memory import StepMemory
from trainers.step import make_loss, make_optimizer, training_step

# name, kind, encoder, patch, batch
GRID: list[tuple[str, str, str, tuple[int, ...], int]] = [
    ("omnia", "unet", "efficientnet_b0", (256, 256), 8),
    ("omnia", "unet", "efficientnet_b0", (512, 512), 4),
    ("omnia", "unet", "efficientnet_b2", (256, 256), 8),
    ("omnia", "unet", "efficientnet_b4", (320, 320), 4),
    ("omnia", "unet", "resnet18", (256, 256), 8),
    ("dx", "unet", "efficientnet_b0", (64, 64, 64), 4),
    ("dx", "unet", "efficientnet_b0", (96, 96, 96), 2),
    ("dx", "unet", "efficientnet_b0", (32, 128, 128), 2),
    ("dx", "unet", "efficientnet_b4", (64, 64, 64), 2),
    ("ds", "ds", "efficientnet_b0", (48, 96, 96), 2),
]


def network_plan(kind: str, encoder: str, patch: tuple[int, ...]) -> NetworkPlan:
    """The network of one row: five levels, one channel, three outputs."""
    dims = len(patch)
    stride = [1, 2, 2] if kind == "ds" else [2] * dims
    return NetworkPlan.model_validate(
        {
            "kind": kind,
            "dims": dims,
            "encoder": encoder,
            "in_channels": 1,
            "num_outputs": 3,
            "strides": [stride] * 5,
            "kernel_sizes": [[3] * dims] * 6,
            "depth": patch[0] if kind == "ds" else None,
        }
    )


def step(plan: NetworkPlan, patch: tuple[int, ...], batch: int, device: str, mixed: bool) -> None:
    """Two real training steps: the second one starts with everything that the first one created."""
    fabric = Fabric(accelerator=device, devices=1, precision="bf16-mixed" if mixed else "32-true")
    layout = memory_format_for(plan.dims)
    network = build_network(plan, None).train().to(memory_format=layout)
    model, optimizer = fabric.setup(network, make_optimizer(network, learning_rate=1e-3))
    loss = make_loss(regions=False)
    for _ in range(2):
        image = torch.randn(batch, plan.in_channels, *patch, device=device).contiguous(memory_format=layout)
        target = torch.randint(plan.num_outputs, (batch, *patch), device=device)
        training_step(model, loss, optimizer, [(image, target)], engine=fabric)


def measure(index: int, mixed: bool) -> int:
    """Run one row for real and return the bytes it took."""
    _, kind, encoder, patch, batch = GRID[index]
    if torch.cuda.is_available():
        step(network_plan(kind, encoder, patch), patch, batch, "cuda", mixed)
        return torch.cuda.max_memory_allocated()
    small = (32,) * len(patch)
    step(network_plan(kind, encoder, small), small, 2, "cpu", mixed)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the tiny step left behind must not serve the real one
    before = resident()
    forget_peak()
    step(network_plan(kind, encoder, patch), patch, batch, "cpu", mixed)
    return peak() - before


def main() -> None:
    """Print the table; with --output also write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--mixed", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        print(measure(arguments.row, arguments.mixed))
        return
    gpu = torch.cuda.is_available()
    device = torch.cuda.get_device_name(0) if gpu else f"{platform.machine()} CPU, torch {torch.__version__}"
    lines = [
        f"Measured on: {device}",
        "",
        "| network | encoder | patch | batch | bits | computed MB | measured MB | computed / measured |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for index, (name, kind, encoder, patch, batch) in enumerate(GRID):
        for mixed in (False, True) if gpu else (False,):
            computed = StepMemory(network_plan(kind, encoder, patch), mixed=mixed).training(patch, batch)
            command = [sys.executable, __file__, "--row", str(index), *(["--mixed"] if mixed else [])]
            measured = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            sizes = " x ".join(map(str, patch))
            lines.append(
                f"| {name} | {encoder} | {sizes} | {batch} | {16 if mixed else 32} | {computed / 2**20:.0f} | "
                f"{measured / 2**20:.0f} | {computed / measured:.2f} |"
            )
            print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
