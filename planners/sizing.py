"""The largest patch, then the largest batch, with which a training step fits the memory budget."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

from autocrossdim.records.labels import Labels
from autocrossdim.records.network import NO_ENCODER, Kind, NetworkChoices, NetworkPlan
from autocrossdim.records.plan import GIGABYTE, MAX_BATCH, MAX_PATCH
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import by_axis
from planners.memory import StepMemory, step_memory
from planners.options import encoder_depths
from planners.patches import PlannedPatch, descending_patches, padded_patch
from planners.topology import Topology
from planners.trial import Outcome, try_out

MIN_BATCH = 2  # batch normalisation needs more than one sample (nnU-Net)
MAX_SHARE_OF_VOXELS = 0.05  # of all training voxels that one batch may contain (nnU-Net)
WORTH_COMPUTING = 1.5  # times the budget: patches that need more by their number of voxels alone are skipped
UNET_DEPTHS = tuple(range(1, 16))  # levels of a U-Net: an axis is halved while 4 voxels remain (nnU-Net)
NOT_PRETRAINED = {"encoder": NO_ENCODER, "network": "default", "inflation": "center"}
STEP_DOWN = 0.9  # of the computed memory: the next budget if the GPU could not run a step


@dataclass(frozen=True)
class Size:
    """Patch size and batch size of a network.

    Attributes:
        patch: Patch size in voxels.
        batch: Patches per training step.
        topology: Strides and kernels for that patch.
        memory: Memory of the network's training step.
    """

    patch: tuple[int, ...]
    batch: int
    topology: Topology
    memory: StepMemory


@dataclass(frozen=True)
class Sizer:
    """Chooses patch and batch size for one kind of network.

    Attributes:
        channels: Number of image channels.
        labels: Labels, which set the number of outputs and the loss.
        options: The user's choices: the network, and a patch or batch size that replaces the planned one.
        mixed: Whether convolutions run in 16 bits.
        budget_bytes: Memory that a training step may take.
        kind: `unet` for Omnia-Net and DX-Net, `ds` for DS-Net, `plain` for a U-Net without pretrained weights.
        masks: Number of masks of a previous stage that are additional channels.
    """

    channels: int
    labels: Labels
    options: PlanOptions
    mixed: bool
    budget_bytes: int
    kind: Kind = "unet"
    masks: int = 0

    def size_that_runs(
        self, shape: tuple[int, ...], spacing: tuple[float, ...], training_voxels: int
    ) -> tuple[Size, Outcome]:
        """Return the size, reduced until a GPU can run its training step, and the outcome of the trial.

        Args:
            shape: Median shape of the cases in voxels.
            spacing: Spacing in mm per axis.
            training_voxels: Number of voxels of all training cases.

        Raises:
            UserError: Nothing fits the memory budget.
        """
        sizer = self
        while True:
            size = sizer.size(shape, spacing, training_voxels)
            outcome = try_out(size.memory, size.patch, size.batch) if self.options.trial else Outcome()
            if outcome.fits:
                return size, outcome
            sizer = replace(sizer, budget_bytes=int(STEP_DOWN * size.memory.training(size.patch, size.batch)))

    def size(self, shape: tuple[int, ...], spacing: tuple[float, ...], training_voxels: int) -> Size:
        """Return the size by the computed memory alone; arguments and errors as for `size_that_runs`."""
        chosen = self._requested(shape, spacing) or self._largest(shape, spacing)
        memory = self._memory(chosen)
        batch = self.options.batch_size or self._largest_batch(chosen.patch, memory, training_voxels)
        return Size(chosen.patch, batch, chosen.topology, memory)

    def choices(self, dims: int) -> dict[str, Any]:
        """Return the fields of `NetworkChoices` for a network over `dims` axes, without those that do not apply."""
        chosen = {name: getattr(self.options, name) for name in NetworkChoices.model_fields}
        return chosen | {
            "slices": self.options.slices if dims == 2 else 1,
            "deep_supervision": self.options.deep_supervision and self.kind != "ds",
            **(NOT_PRETRAINED if self.kind == "plain" else {}),
        }

    @cached_property
    def _depths(self) -> tuple[int, ...]:
        return UNET_DEPTHS if self.kind == "plain" else encoder_depths(self.options.encoder)

    def _requested(self, shape: tuple[int, ...], spacing: tuple[float, ...]) -> PlannedPatch | None:
        """Return the patch for the requested patch size, or None if none was requested."""
        if self.options.patch_size is None:
            return None
        sides = self.options.patch_size[-len(shape) :]
        # A volume for which only the in-plane sides were given keeps all of its slices.
        sides = shape[: len(shape) - len(sides)] + sides
        requested = padded_patch(sides, spacing, depths=self._depths, kind=self.kind)
        option = f"--patch-size {','.join(map(str, self.options.patch_size))}"
        if prod(requested.patch) > MAX_PATCH:
            raise UserError(
                f"{option}: a patch of {by_axis(requested.patch)} voxels is larger than the limit of {MAX_PATCH:,} "
                "voxels. Choose a smaller patch."
            )
        needed = self._needed(requested)
        if needed > self.budget_bytes:
            raise UserError(
                f"{option}: training on patches of {by_axis(requested.patch)} voxels with batch size "
                f"{self._smallest_batch} needs {_gigabytes(needed)}, but the memory budget is "
                f"{self.budget_bytes / GIGABYTE:.3g} GB. Choose a smaller patch, or raise --memory if the hardware "
                "has more."
            )
        return requested

    def _largest(self, shape: tuple[int, ...], spacing: tuple[float, ...]) -> PlannedPatch:
        """Return the largest patch that fits.

        Patches that are far too large by their number of voxels alone are skipped. The larger the budget, the fewer
        are skipped, so more memory never leads to a smaller patch.
        """
        patches = descending_patches(shape, spacing, depths=self._depths, kind=self.kind)
        largest = patches[0]
        needed_by_largest = self._needed(largest)
        for smaller in patches:
            estimate = needed_by_largest * prod(smaller.patch) / prod(largest.patch)
            if estimate <= WORTH_COMPUTING * self.budget_bytes and self._needed(smaller) <= self.budget_bytes:
                return smaller
        smallest = patches[-1]
        network, remedy = self.options.encoder, "Choose a smaller --encoder, or raise --memory"
        if self.kind == "plain":
            network, remedy = "a U-Net", "Raise --memory"
        raise UserError(
            f"Training {network} in {len(shape)}D on the smallest patch ({by_axis(smallest.patch)} voxels) with batch "
            f"size {self._smallest_batch} needs {_gigabytes(self._needed(smallest))}, but the memory budget is "
            f"{self.budget_bytes / GIGABYTE:.3g} GB. {remedy} if the hardware has more."
        )

    @property
    def _smallest_batch(self) -> int:
        return self.options.batch_size or MIN_BATCH

    def _needed(self, patch: PlannedPatch) -> int:
        return self._memory(patch).training(patch.patch, self._smallest_batch)

    def _largest_batch(self, patch: tuple[int, ...], memory: StepMemory, training_voxels: int) -> int:
        two, three = memory.training(patch, 2), memory.training(patch, 3)
        fitting = 2 + (self.budget_bytes - two) // max(1, three - two)
        share = int(MAX_SHARE_OF_VOXELS * training_voxels / prod(patch))
        return max(MIN_BATCH, min(fitting, share, MAX_BATCH))

    def _memory(self, patch: PlannedPatch) -> StepMemory:
        return step_memory(self._network(patch), mixed=self.mixed, regions=self.labels.has_regions)

    def _network(self, patch: PlannedPatch) -> NetworkPlan:
        return NetworkPlan.of(
            self.choices(len(patch.patch)),
            kind=self.kind,
            channels=self.channels,
            masks=self.masks,
            num_outputs=self.labels.num_outputs,
            patch=patch.patch,
            strides=patch.topology.strides,
            kernel_sizes=patch.topology.kernel_sizes,
        )


def _gigabytes(size: int) -> str:
    # Rounded up, so that a budget of this size is enough.
    return f"{size / GIGABYTE + 0.005:.2f} GB"
