"""The largest patch, then the largest batch, whose training step fits the memory budget."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from autocrossdim.errors import UserError
from autocrossdim.networks.plan import NetworkPlan
from autocrossdim.plan import GIGABYTE
from planners.memory import StepMemory
from planners.topology import Topology, padded, topology

MIN_BATCH = 2  # batch norm needs more than one sample (nnU-Net)
MAX_SHARE_OF_VOXELS = 0.05  # of all training voxels in one batch, so that an epoch is not a handful of steps (nnU-Net)
ENCODER_LEVELS = 5  # halvings of every encoder family supported
PATCH_STEPS = 24  # sizes tried between the median shape and the smallest patch


@dataclass(frozen=True)
class Size:
    """A patch (voxels an axis), a batch, their topology and the bytes of their training step."""

    patch: tuple[int, ...]
    batch: int
    topology: Topology
    estimated_bytes: int


@dataclass(frozen=True)
class Sizer:
    """Sizes patches and batches for one kind of network.

    Attributes:
        channels: of the image.
        num_outputs: of the network.
        encoder: timm architecture.
        network: `default` or `paper`.
        budget_bytes: what a training step may take.
        patch_size: asked for by the user; its last axes serve a 2D network.
        batch_size: asked for by the user.
    """

    channels: int
    num_outputs: int
    encoder: str
    network: Literal["default", "paper"]
    budget_bytes: int
    patch_size: tuple[int, ...] | None = None
    batch_size: int | None = None

    def size(self, shape: tuple[int, ...], spacing: tuple[float, ...], training_voxels: int) -> Size:
        """Return patch and batch for cases of a median `shape` (voxels) at `spacing` (mm).

        Raises:
            UserError: not even the smallest patch fits; the message names the memory it would take.
        """
        if self.patch_size is not None:
            candidates = [self._asked(self.patch_size, shape, spacing)]
        else:
            candidates = self._candidates(shape, spacing)
        patch, levels, memory = self._largest_that_fits(candidates)
        batch = self.batch_size or self._batch(patch, memory, training_voxels)
        return Size(patch, batch, levels, memory.bytes(patch, batch))

    def _candidates(self, shape: tuple[int, ...], spacing: tuple[float, ...]) -> list[tuple[tuple[int, ...], Topology]]:
        """Patches from the padded median shape downwards: cubes in mm, cut off where the image ends."""
        extent = [n * mm for n, mm in zip(shape, spacing, strict=True)]
        candidates: list[tuple[tuple[int, ...], Topology]] = []
        for side in np.geomspace(max(extent), 16 * min(spacing), PATCH_STEPS):
            wanted = tuple(int(min(n, max(1, side // mm))) for n, mm in zip(shape, spacing, strict=True))
            levels = topology(wanted, spacing, ENCODER_LEVELS)
            patch = padded(wanted, levels.total_stride)
            if (patch, levels) not in candidates:
                candidates.append((patch, levels))
        return candidates

    def _asked(
        self, asked: tuple[int, ...], shape: tuple[int, ...], spacing: tuple[float, ...]
    ) -> tuple[tuple[int, ...], Topology]:
        if len(asked) < len(shape):
            asked = (*shape[: len(shape) - len(asked)], *asked)
        wanted = asked[-len(shape) :]
        levels = topology(wanted, spacing, ENCODER_LEVELS)
        return padded(wanted, levels.total_stride), levels

    def _largest_that_fits(
        self, candidates: list[tuple[tuple[int, ...], Topology]]
    ) -> tuple[tuple[int, ...], Topology, StepMemory]:
        batch = self.batch_size or MIN_BATCH
        needed = 0
        memories: dict[Topology, StepMemory] = {}
        for patch, levels in candidates:
            if levels not in memories:
                memories[levels] = StepMemory(self._network(levels))
            memory = memories[levels]
            needed = memory.bytes(patch, batch)
            if needed <= self.budget_bytes:
                return patch, levels, memory
        raise UserError(
            f"--memory {self.budget_bytes / GIGABYTE:.3g}: too little to train {self.encoder} in "
            f"{len(candidates[-1][0])}D. The smallest patch needs {needed / GIGABYTE + 0.005:.2f} GB."
        )

    def _batch(self, patch: tuple[int, ...], memory: StepMemory, training_voxels: int) -> int:
        one, two = memory.bytes(patch, 1), memory.bytes(patch, 2)
        fits = 1 + (self.budget_bytes - one) // max(1, two - one)
        share = int(MAX_SHARE_OF_VOXELS * training_voxels / np.prod(patch))
        return max(MIN_BATCH, min(fits, share))

    def _network(self, levels: Topology) -> NetworkPlan:
        return NetworkPlan(
            kind="unet",
            preset=self.network,
            dims=len(levels.kernel_sizes[0]),
            encoder=self.encoder,
            in_channels=self.channels,
            num_outputs=self.num_outputs,
            strides=[list(stride) for stride in levels.strides],
            kernel_sizes=[list(kernel) for kernel in levels.kernel_sizes],
            inflation="center",
        )
