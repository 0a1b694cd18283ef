"""Depthwise 3D convolutions on a GPU: PyTorch's in either layout and ours, alone and in a DX-Net.

    python benchmarks/depthwise_gpu.py [--device cuda] [--patch 96 160 160]

Layers: forward and backward, batch 2. DX-Net: EfficientNet-B0 with random weights, batch 2. Everything in the 16 bits
in which the device trains, in ms, the mean of several runs after two that are not counted. Results: results/gpu.md.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from autocrossdim.networks.build import build_network
from autocrossdim.networks.depthwise import DepthwiseConv3d
from autocrossdim.networks.depthwise_slices import by_slices
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.device import autocast_for, synchronize
from trainers.step import make_loss, make_optimizer, training_step

LAYERS = [
    (32, 96, 3, 1),
    (96, 24, 7, 1),
    (32, 48, 3, 1),
    (96, 48, 3, 2),
    (144, 24, 5, 2),
    (240, 12, 5, 1),
    (1152, 3, 5, 1),
]
LAST = torch.channels_last_3d


def by_torch(layer: DepthwiseConv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Replace `DepthwiseConv3d._conv_forward` by `conv3d`."""
    return F.conv3d(x, weight, bias, layer.stride, layer.padding, 1, len(weight))


def milliseconds(run: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the mean time of a run."""
    run(), run()
    synchronize(device)
    started = time.perf_counter()
    for _ in range(repeats):
        run()
    synchronize(device)
    return 1e3 * (time.perf_counter() - started) / repeats


def layer_row(channels: int, side: int, kernel: int, stride: int, device: torch.device) -> str:
    """Return a line of the table of layers."""
    weight = torch.randn(channels, 1, *[kernel] * 3, device=device, requires_grad=True)
    plain = torch.randn(2, channels, *[side] * 3, device=device)
    steps, pads = (stride,) * 3, (kernel // 2,) * 3
    dtype = torch.get_autocast_dtype(device.type)

    def of_torch(x: Tensor) -> Tensor:
        return F.conv3d(x, weight, None, steps, pads, 1, channels)

    def of_slices(x: Tensor) -> Tensor:
        return by_slices(x.to(dtype), weight.to(dtype), steps, pads)

    cells = []
    for convolve, x in ((of_torch, plain.contiguous(memory_format=LAST)), (of_torch, plain.clone()),
                        (of_slices, plain.contiguous(memory_format=LAST))):  # fmt: skip
        x.requires_grad_()

        def both(convolve: Callable[[Tensor], Tensor] = convolve, x: Tensor = x) -> None:
            with autocast_for(device):
                y = convolve(x)
            y.backward(torch.ones_like(y))

        cells.append(f"{milliseconds(both, device, 8):.1f}")
    return f"| {channels}, {side}³, {kernel}, {stride} | {' | '.join(cells)} |"


def network_row(name: str, method: Callable[..., Tensor], patch: list[int], device: torch.device) -> str:
    """Return a line of the table of networks."""
    DepthwiseConv3d._conv_forward = method  # type: ignore[method-assign]
    plan = NetworkPlan(
        dims=3,
        encoder="efficientnet_b0",
        in_channels=1,
        num_outputs=3,
        strides=[[2] * 3] * 5,
        kernel_sizes=[[3] * 3] * 6,
    )
    network: nn.Module = build_network(plan, None).to(device, memory_format=LAST)
    optimizer, loss = make_optimizer(network, learning_rate=1e-3), make_loss(regions=False)  # type: ignore[arg-type]
    image = torch.randn(2, 1, *patch, device=device).contiguous(memory_format=LAST)
    target = torch.randint(3, (2, *patch), device=device)

    def step() -> None:
        with autocast_for(device):
            training_step(network, loss, optimizer, [(image, target)])

    def forward() -> None:
        with torch.inference_mode(), autocast_for(device):
            network.eval()(image)

    return f"| {name} | {milliseconds(step, device, 5):.0f} | {milliseconds(forward, device, 5):.0f} |"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--patch", nargs=3, type=int, default=[96, 160, 160])
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    print("| channels, input, kernel, stride | conv3d, channels last | conv3d, contiguous | slice by slice |")
    print("|---|---|---|---|")
    for layer in LAYERS:
        print(layer_row(*layer, device), flush=True)
    print("\n| depthwise layers | training step | forward pass |\n|---|---|---|")
    for name, method in (("conv3d", by_torch), ("slice by slice", DepthwiseConv3d._on_gpu)):
        print(network_row(name, method, arguments.patch, device), flush=True)


if __name__ == "__main__":
    main()
