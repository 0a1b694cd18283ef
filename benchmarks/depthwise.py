"""The two gradients of a depthwise 3D convolution: PyTorch's in either layout, and ours.

    OMP_NUM_THREADS=1 python benchmarks/depthwise.py [--repeats 7]

At the stages of an inflated EfficientNet-B0 for patches of 40 x 56 x 40 and 96 x 96 x 96, and at three of ConvNeXt-T's.
The alternatives take turns; times are the least, in ms that the thread computed.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from autocrossdim.networks.depthwise_cpu import input_gradient, weight_gradient

BATCH = 2
# channels, input, kernel, stride
STAGES = [
    (32, (20, 28, 20), 3, 1),
    (96, (20, 28, 20), 3, 2),
    (144, (10, 14, 10), 3, 1),
    (144, (10, 14, 10), 5, 2),
    (240, (5, 7, 5), 5, 1),
    (32, (48, 48, 48), 3, 1),
    (96, (48, 48, 48), 3, 2),
    (144, (24, 24, 24), 3, 1),
    (144, (24, 24, 24), 5, 2),
    (240, (12, 12, 12), 5, 1),
    (240, (12, 12, 12), 3, 2),
    (480, (6, 6, 6), 3, 1),
    (480, (6, 6, 6), 5, 1),
    (672, (6, 6, 6), 5, 2),
    (1152, (3, 3, 3), 5, 1),
    (1152, (3, 3, 3), 3, 1),
    (96, (24, 24, 24), 7, 1),
    (192, (12, 12, 12), 7, 1),
    (768, (3, 3, 3), 7, 1),
]


def torchs(x: Tensor, grad: Tensor, weight: Tensor, stride: list[int], padding: list[int], mask: list[bool]) -> None:
    """One of PyTorch's own gradients."""
    torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, [1, 1, 1], False, [0, 0, 0], len(weight), mask
    )


def row(channels: int, size: tuple[int, ...], k: int, s: int, repeats: int) -> str:
    """One line of the table."""
    stride, padding = [s] * 3, [k // 2] * 3
    x, weight = torch.randn(BATCH, channels, *size), torch.randn(channels, 1, k, k, k)
    grad = torch.randn_like(F.conv3d(x, weight, None, stride, padding, 1, channels))
    last_x, last_grad = (value.contiguous(memory_format=torch.channels_last_3d) for value in (x, grad))
    runs: dict[tuple[str, str], Callable[[], object]] = {}
    for by, mask in (("input", [True, False, False]), ("weight", [False, True, False])):
        runs["plain", by] = partial(torchs, x, grad, weight, stride, padding, mask)
        runs["channels last", by] = partial(torchs, last_x, last_grad, weight, stride, padding, mask)
    runs["here", "input"] = partial(input_gradient, last_grad, weight, size, stride, padding)
    runs["here", "weight"] = partial(weight_gradient, last_grad, last_x, weight, stride, padding)
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):
        for name, run in runs.items():
            started = time.thread_time()
            run()
            best[name] = min(best[name], 1e3 * (time.thread_time() - started))
    cells = [
        f"{best[which, 'input']:.1f} + {best[which, 'weight']:.1f}" for which in ("plain", "channels last", "here")
    ]
    return f"| {channels}, {' x '.join(map(str, size))}, {k}, {s} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    print("| channels, input, kernel, stride | conv3d | conv3d, channels last | here |\n|---|---|---|---|")
    for stage in STAGES:
        print(row(*stage, repeats), flush=True)


if __name__ == "__main__":
    main()
