"""Time and memory of one training step, beside nnU-Net's network for the same patch and batch.

    python benchmarks/step.py [--nnunet PYTHON] [--threads 1] [--steps 5] [--rounds 2] [--output FILE]

A step is forward, loss, backward, clipping and the optimiser's step, on made-up data with one channel and three
labels. Ours: the default network that the planner builds for the patch, with Dice + cross-entropy and NAdam, in the
trainer's layout. nnU-Net's: its PlainConvUNet as its planner would build it (its own topology at isotropic spacing,
32 to 320 features, 512 in 2D, two convolutions per stage, instance norm, leaky ReLU), with its loss, deep supervision
and SGD. `--nnunet` names the Python of an environment with nnU-Net 2.8.1; without it only our rows are run.

Each run is a process of its own, and networks take turns. `wall` is the least (and median) time of the steps after the
first; `CPU` the least time that the process computed, which other programs on the machine disturb less. Memory is the
growth of the resident set at its peak over that after a tiny step, which loads everything else.
"""

import argparse
import ctypes
import gc
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from peak import forget_peak, peak, resident

# patch, batch
ROWS: list[tuple[tuple[int, ...], int]] = [((40, 56, 40), 2), ((64, 96, 96), 2), ((192, 192), 8)]
LABELS = 3
CLIP = 12.0  # largest norm of the gradient, in both
Step = Callable[[], None]


def our_step(patch: tuple[int, ...], batch: int) -> tuple[torch.nn.Module, Step]:
    """Omnia-Net or DX-Net over EfficientNet-B0, and one step of its training."""
    from autocrossdim.networks.build import build_network
    from autocrossdim.records.network import NetworkPlan
    from autocrossdim.system.device import memory_format_for
    from planners.topology import topology
    from trainers.step import make_loss, make_optimizer, training_step

    levels = topology(patch, (1.0,) * len(patch), levels=5)
    plan = NetworkPlan.model_validate(
        {
            "dims": len(patch),
            "encoder": "efficientnet_b0",
            "in_channels": 1,
            "num_outputs": LABELS,
            "strides": [list(stride) for stride in levels.strides],
            "kernel_sizes": [list(kernel) for kernel in levels.kernel_sizes],
        }
    )
    layout = memory_format_for(plan.dims)
    network: Any = build_network(plan, None).train().to(memory_format=layout)
    optimizer, loss = make_optimizer(network, learning_rate=2e-3), make_loss(regions=False)
    image = torch.randn(batch, 1, *patch).contiguous(memory_format=layout)
    target = torch.randint(LABELS, (batch, *patch))

    def step() -> None:
        training_step(network, loss, optimizer, [(image, target)], gradient_clip=CLIP)

    return network, step


def nnunet_step(patch: tuple[int, ...], batch: int) -> tuple[torch.nn.Module, Step]:
    """nnU-Net's PlainConvUNet, and one step of its training."""
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from nnunetv2.experiment_planning.experiment_planners.network_topology import get_pool_and_conv_props
    from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
    from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
    from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

    dims = len(patch)
    _, strides, kernels, _, _ = get_pool_and_conv_props((1.0,) * dims, patch, 4, 999999)
    stages = len(strides)
    conv, norm = (torch.nn.Conv3d, torch.nn.InstanceNorm3d) if dims == 3 else (torch.nn.Conv2d, torch.nn.InstanceNorm2d)
    network: Any = PlainConvUNet(
        input_channels=1,
        n_stages=stages,
        features_per_stage=[min(320 if dims == 3 else 512, 32 * 2**stage) for stage in range(stages)],
        conv_op=conv,
        kernel_sizes=kernels,
        strides=strides,
        n_conv_per_stage=2,
        num_classes=LABELS,
        n_conv_per_stage_decoder=2,
        conv_bias=True,
        norm_op=norm,
        norm_op_kwargs={"eps": 1e-5, "affine": True},
        nonlin=torch.nn.LeakyReLU,
        nonlin_kwargs={"inplace": True},
        deep_supervision=True,
    ).train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-2, weight_decay=3e-5, momentum=0.99, nesterov=True)
    weights = [0.5**level for level in range(stages - 2)] + [0.0]
    options = {"batch_dice": True, "smooth": 1e-5, "do_bg": False, "ddp": False}
    loss = DeepSupervisionWrapper(
        DC_and_CE_loss(options, {}, dice_class=MemoryEfficientSoftDiceLoss), [w / sum(weights) for w in weights]
    )
    image = torch.randn(batch, 1, *patch)
    with torch.no_grad():
        targets = [torch.randint(LABELS, (batch, 1, *logits.shape[2:])).float() for logits in network(image)]

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network(image), targets).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimizer.step()

    return network, step


def measure(row: int, nnunet: bool, threads: int, steps: int) -> dict[str, Any]:
    """Run one row in this process."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    make = nnunet_step if nnunet else our_step
    patch, batch = ROWS[row]
    make((32,) * len(patch), 2)[1]()
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what the tiny step left behind must not serve the real one
    before = resident()
    network, step = make(patch, batch)
    forget_peak()
    step()
    wall, cpu = [], []
    for _ in range(steps):
        started, computed = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - started)
        cpu.append(time.process_time() - computed)
    parameters = sum(p.numel() for p in network.parameters())
    return {"wall": wall, "cpu": cpu, "bytes": peak() - before, "parameters": parameters}


def table(arguments: argparse.Namespace) -> Iterator[str]:
    """The lines of the report, as they are measured."""
    yield f"{platform.machine()}, PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}, float32,"
    yield f"{arguments.threads} thread(s), {arguments.rounds} x {arguments.steps} steps a row."
    yield ""
    yield "| patch x batch | network | parameters | wall, s a step (median) | CPU, s a step | memory |"
    yield "|---|---|---|---|---|---|"
    environment = {**os.environ, "OMP_NUM_THREADS": str(arguments.threads), "OMP_WAIT_POLICY": "PASSIVE"}
    for row, (patch, batch) in enumerate(ROWS):
        pythons = [(False, sys.executable), *([(True, arguments.nnunet)] if arguments.nnunet else [])]
        found: dict[bool, list[dict[str, Any]]] = {nnunet: [] for nnunet, _ in pythons}
        for _ in range(arguments.rounds):
            for nnunet, python in pythons:
                command = [python, __file__, "--row", str(row), "--threads", str(arguments.threads)]
                command += ["--steps", str(arguments.steps), *(["--theirs"] if nnunet else [])]
                run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
                found[nnunet].append(json.loads(run.stdout.splitlines()[-1]))
        for nnunet, runs in found.items():
            name = "nnU-Net PlainConvUNet" if nnunet else "DX-Net B0" if len(patch) == 3 else "Omnia-Net B0"
            wall, cpu = ([seconds for run in runs for seconds in run[key]] for key in ("wall", "cpu"))
            yield (
                f"| {' x '.join(map(str, patch))}, {batch} | {name} | {runs[0]['parameters'] / 1e6:.1f} M | "
                f"{min(wall):.2f} ({statistics.median(wall):.2f}) | {min(cpu):.2f} | "
                f"{max(run['bytes'] for run in runs) / 2**20:.0f} MB |"
            )


def main() -> None:
    """Print the table; with --output also write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnunet", metavar="PYTHON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--theirs", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        print(json.dumps(measure(arguments.row, arguments.theirs, arguments.threads, arguments.steps)))
        return
    lines = []
    for line in table(arguments):
        lines.append(line)
        print(line, flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
