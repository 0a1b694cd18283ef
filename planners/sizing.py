"""The largest patch, then the largest batch, whose training step fits the memory budget."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, Literal

import numpy as np

from autocrossdim.records.network import NetworkChoices, NetworkPlan
from autocrossdim.records.plan import GIGABYTE, MAX_BATCH, MAX_PATCH, PlanOptions
from autocrossdim.system.errors import UserError
from planners.memory import StepMemory
from planners.topology import Topology, padded, topology
from planners.trial import Outcome, try_out

MIN_BATCH = 2  # batch norm needs more than one sample (nnU-Net)
MAX_SHARE_OF_VOXELS = 0.05  # of all training voxels in one batch, so that an epoch is not a handful of steps (nnU-Net)
ENCODER_LEVELS = 5  # halvings of every encoder family supported
ROUGHLY = 1.5  # times the budget: patches whose voxels alone say that they need more are not computed
PATCH_STEPS = 32  # sizes tried between the median shape and the smallest patch
SMALLEST_SIDE = 16  # voxels along the finest axis
DS_DEPTH = 5  # the shallowest patch DS-Net can compress
STEP_DOWN = 0.9  # of what was computed, where a GPU could not hold it

Candidate = tuple[tuple[int, ...], Topology]


@dataclass(frozen=True)
class Size:
    """A patch (voxels an axis), a batch, their topology, and the memory that says what they cost."""

    patch: tuple[int, ...]
    batch: int
    topology: Topology
    memory: StepMemory


@dataclass(frozen=True)
class Sizer:
    """Sizes patches and batches for one kind of network.

    Attributes:
        channels: Number of image channels.
        num_outputs: Number of network outputs.
        options: What the user chose: the network, and a patch or batch size instead of the planned one.
        mixed: Whether training runs in 16 bits.
        budget_bytes: Memory that a training step may take.
        kind: `unet`, or `ds` for DS-Net, which spends its own strides on depth.
    """

    channels: int
    num_outputs: int
    options: PlanOptions
    mixed: bool
    budget_bytes: int
    kind: Literal["unet", "ds"] = "unet"
    _memories: dict[str, StepMemory] = field(default_factory=dict, compare=False)

    def size_that_runs(
        self, shape: tuple[int, ...], spacing: tuple[float, ...], training_voxels: int
    ) -> tuple[Size, Outcome]:
        """Return the size and what came of running its step; smaller than computed if the GPU could not hold it.

        Raises:
            UserError: nothing fits.
        """
        sizer = self
        while True:
            size = sizer.size(shape, spacing, training_voxels)
            outcome = try_out(size.memory, size.patch, size.batch) if self.options.trial else Outcome()
            if outcome.fits:
                return size, outcome
            sizer = replace(sizer, budget_bytes=int(STEP_DOWN * size.memory.training(size.patch, size.batch)))

    def size(self, shape: tuple[int, ...], spacing: tuple[float, ...], training_voxels: int) -> Size:
        """Return patch and batch for cases of a median `shape` (voxels) at `spacing` (mm).

        Raises:
            UserError: not even the smallest patch fits; the message names the memory it would take.
        """
        if self.options.patch_size is not None:
            asked = self.options.patch_size[-len(shape) :]
            # In-plane sizes were given for a volume: all slices, then.
            wanted = (*shape[: len(shape) - len(asked)], *asked)
            levels = levels_for(self.kind, wanted, spacing)
            candidates = [(padded(wanted, levels.total_stride), levels)]
        else:
            candidates = patches(shape, spacing, self.kind)
        patch, levels = self._largest_that_fits(candidates)
        memory = self._memory(patch, levels)
        batch = self.options.batch_size or self._largest_batch(patch, memory, training_voxels)
        return Size(patch, batch, levels, memory)

    def _largest_that_fits(self, candidates: Sequence[Candidate]) -> Candidate:
        """The first candidate that fits; they get smaller.

        Far too large ones are passed over by their voxels alone. What is passed over shrinks as the budget grows,
        so more memory never gives a smaller patch.
        """
        whole = self._needed(candidates[0])
        for candidate in candidates:
            rough = whole * (prod(candidate[0]) / prod(candidates[0][0]))
            if rough <= ROUGHLY * self.budget_bytes and self._needed(candidate) <= self.budget_bytes:
                return candidate
        needed = self._needed(candidates[-1]) / GIGABYTE + 0.005
        raise UserError(
            f"--memory {self.budget_bytes / GIGABYTE:.3g}: too little to train {self.options.encoder} in "
            f"{len(candidates[-1][0])}D. The smallest patch that can be planned needs {needed:.2f} GB."
        )

    def _needed(self, candidate: Candidate) -> int:
        patch, levels = candidate
        return self._memory(patch, levels).training(patch, self.options.batch_size or MIN_BATCH)

    def _largest_batch(self, patch: tuple[int, ...], memory: StepMemory, training_voxels: int) -> int:
        two, three = memory.training(patch, 2), memory.training(patch, 3)
        fits = 2 + (self.budget_bytes - two) // max(1, three - two)
        share = int(MAX_SHARE_OF_VOXELS * training_voxels / prod(patch))
        return max(MIN_BATCH, min(fits, share, MAX_BATCH))

    def _memory(self, patch: tuple[int, ...], levels: Topology) -> StepMemory:
        plan = self._network(patch, levels)
        key = plan.model_dump_json()
        if key not in self._memories:
            self._memories[key] = StepMemory(plan, self.mixed)
        return self._memories[key]

    def _network(self, patch: tuple[int, ...], levels: Topology) -> NetworkPlan:
        dims = len(patch)
        choices = {name: getattr(self.options, name) for name in NetworkChoices.model_fields}
        return NetworkPlan(
            **choices | self.adjusted(dims),
            kind=self.kind,
            depth=patch[0] if self.kind == "ds" else None,
            dims=dims,
            in_channels=self.channels * (self.options.slices if dims == 2 else 1),
            num_outputs=self.num_outputs,
            strides=[list(stride) for stride in levels.strides],
            kernel_sizes=[list(kernel) for kernel in levels.kernel_sizes],
        )

    def adjusted(self, dims: int) -> dict[str, Any]:
        """Return the choices that do not apply to a network over `dims` axes, switched off."""
        return {
            "slices": self.options.slices if dims == 2 else 1,
            "deep_supervision": self.options.deep_supervision and self.kind == "unet",
        }


def levels_for(kind: str, shape: tuple[int, ...], spacing: tuple[float, ...]) -> Topology:
    """Return the topology of a patch; DS-Net's encoder is 2D, so it halves in-plane only."""
    if kind != "ds":
        return topology(shape, spacing, ENCODER_LEVELS)
    flat = topology(shape[1:], spacing[1:], ENCODER_LEVELS)
    return Topology(tuple((1, *s) for s in flat.strides), tuple((3, *k) for k in flat.kernel_sizes))


def patches(shape: tuple[int, ...], spacing: tuple[float, ...], kind: str = "unet") -> list[Candidate]:
    """Return patches from the padded median shape downwards, each with its topology.

    A patch is a cube in mm, cut off where the image ends, and padded to what its strides need and no more.

    Args:
        shape: median shape, voxels an axis.
        spacing: mm an axis.
        kind: of the network.
    """
    extent = [n * mm for n, mm in zip(shape, spacing, strict=True)]
    smallest = min(SMALLEST_SIDE * min(spacing), max(extent))
    candidates: list[Candidate] = []
    for side in np.geomspace(max(extent), smallest, PATCH_STEPS):
        # The tolerance keeps the first side, the image itself, from being rounded down.
        wanted = tuple(int(min(n, max(1, side / mm + 1e-6))) for n, mm in zip(shape, spacing, strict=True))
        if kind == "ds":
            # DS-Net compresses depth to three slices, and needs five to do so.
            wanted = (max(DS_DEPTH, wanted[0]), *wanted[1:])
        levels = levels_for(kind, wanted, spacing)
        candidate = padded(wanted, levels.total_stride), levels
        if candidate not in candidates and prod(candidate[0]) <= MAX_PATCH:
            candidates.append(candidate)
    return candidates
