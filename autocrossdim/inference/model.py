"""A loaded model: the folds of one configuration, applied to a preprocessed case slice by slice."""

import math
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autocrossdim.inference.assembly import Assembly
from autocrossdim.inference.body import Body, find_body
from autocrossdim.inference.fuse import fuse
from autocrossdim.inference.residence import place, room_for_logits, settle
from autocrossdim.inference.restore import (
    lines_for,
    places,
    slices_at_original_resolution,
    strips_of,
    to_probabilities,
)
from autocrossdim.inference.sliding_window import CPU_BATCH_VOXELS, Window, logits_by_slab
from autocrossdim.networks.build import build_network
from autocrossdim.networks.image_norm import ImageNorm
from autocrossdim.preprocessing.case import Placement, Spacing, preprocess
from autocrossdim.preprocessing.resample import resample_label
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Configuration, Plan
from autocrossdim.records.same_plan import SamePlan
from autocrossdim.system.device import CPU, memory_format_for
from autocrossdim.system.errors import UserError


@dataclass
class ModelInput:
    """A case as preprocessed for one model.

    Attributes:
        image: Normalised and resampled image, shape (C, Z, Y, X). The last channel of a cascade holds the label
            values of the segmentation by the previous stage (`with_previous_stage`).
        placement: Position of the image in the original grid.
        body: Imaged part of the case, where the plan tells it from the background.
        is_complete: Whether the image has all channels.
    """

    image: np.ndarray
    placement: Placement
    body: Body | None = None
    is_complete: bool = True

    def with_previous_stage(self, label: np.ndarray) -> "ModelInput":
        """Return the input of a cascade.

        Args:
            label: Segmentation by the previous stage on the grid of the cropped case, shape (Z, Y, X).
        """
        place = self.placement
        label = resample_label(label, place.shape, place.orders(1))
        return replace(self, image=np.concatenate([self.image, label[None]], dtype=self.image.dtype))


@dataclass
class Model:
    """The folds of one configuration, in eval mode.

    Attributes:
        plan: Plan of the dataset.
        configuration: Configuration of the plan.
        networks: One network per fold; on a GPU without room for all, some are moved there only while they compute.
        device: Device on which the networks compute.
        folds: Fold of each network; empty if unknown.
        channel_dropout: Whether all networks were trained with channel dropout, so that a channel may be missing.
        digests: SHA-256 of each network as trained; empty if unknown.
        image_statistics: Share of each image's own statistics in batch norms.
        trained_on: Content hashes of the images of the cases that the networks were trained on, where they are known:
            exported files do not contain them.
    """

    plan: Plan
    configuration: Configuration
    networks: Sequence[nn.Module]
    device: torch.device = CPU
    folds: Sequence[int | str] = ()
    channel_dropout: bool = False
    digests: Sequence[str] = ()
    image_statistics: float = 0.0
    trained_on: Set[str] = frozenset()

    @classmethod
    def load(cls, checkpoints: Sequence[Path], device: torch.device) -> "Model":
        """Load the folds of one configuration from files.

        Args:
            checkpoints: Checkpoints of the folds.
            device: Device to compute on.

        Raises:
            UserError: A checkpoint is missing, damaged or incomplete, or the folds were trained under different plans.
        """
        return cls.of(((path, Checkpoint.read(path)) for path in checkpoints), device)

    @classmethod
    def of(
        cls,
        checkpoints: Iterable[tuple[Path, Checkpoint]],
        device: torch.device,
        *,
        together: SamePlan | None = None,
        image_statistics: float | None = None,
    ) -> "Model":
        """Build the folds of one configuration, one after another.

        Args:
            checkpoints: Checkpoints of the folds, each with the file it comes from.
            device: Device to compute on.
            together: Check against the checkpoints of the other models of an ensemble.
            image_statistics: Share of each image's own statistics in batch norms; that of the plan if None.

        Raises:
            UserError: A checkpoint is damaged or incomplete, or was trained under another plan than the others.
        """
        together = together or SamePlan()
        networks: list[nn.Module] = []
        folds: list[int | str] = []
        digests: list[str] = []
        trained_on: set[str] = set()
        plan, configuration = None, None
        channel_dropout, share = True, 0.0
        for path, checkpoint in checkpoints:
            together.add(path, checkpoint)
            plan, configuration = checkpoint.plan, checkpoint.plan.configuration(checkpoint.configuration)
            share = configuration.image_statistics if image_statistics is None else image_statistics
            network = _network(path, checkpoint, plan, configuration, share)
            if image_statistics and not any(isinstance(module, ImageNorm) for module in network.modules()):
                raise UserError(
                    f"--image-statistics: {configuration.name} has no batch normalisation, so it would have no effect. "
                    "Omit it."
                )
            # Any configuration may be part of the same ensemble.
            inference_bytes = max(each.memory.inference_bytes for each in plan.configurations.values())
            networks.append(settle(network, device, inference_bytes))
            folds.append(checkpoint.fold)
            digests.append(checkpoint.network_digest)
            channel_dropout &= checkpoint.channel_dropout > 0
            train = checkpoint.split.get("train", ())  # empty in exported files
            trained_on |= {checkpoint.images[name] for name in train if name in checkpoint.images}
        if plan is None or configuration is None:
            raise UserError("No trained fold was given.")
        return cls(
            plan,
            configuration,
            networks,
            device,
            folds,
            channel_dropout=channel_dropout,
            digests=digests,
            image_statistics=share,
            trained_on=trained_on,
        )

    @property
    def is_as_validated(self) -> bool:
        """Whether batch norms use the statistics that they used on the held-out cases."""
        return self.image_statistics == self.configuration.image_statistics

    def window(self, *, mirroring: bool, as_planned: bool = False) -> Window:
        """Return the tiles: of the plan's patch size, in batches of the size that fitted into memory in training.

        Args:
            mirroring: Average over all mirrorings.
            as_planned: Do not reduce the batches on a CPU, where large ones do not pay.
        """
        batch = self.configuration.batch_size
        if self.device.type == "cpu" and not as_planned:
            batch = min(batch, CPU_BATCH_VOXELS // math.prod(self.configuration.patch_shape))
        return Window(
            dims=self.configuration.dims,
            patch=self.configuration.patch_shape,
            batch=max(1, batch),
            slices=self.configuration.slices,
            mirror_axes=self.configuration.mirrored_in_prediction if mirroring else (),
            masks=tuple(self.plan.labels.foreground.values()) if self.configuration.previous_stage else (),
        )

    def prepare(
        self,
        image: np.ndarray,
        spacing: Spacing,
        *,
        orientation: str | None = None,
        channels: Sequence[int] | None = None,
        overwrite: bool = False,
    ) -> ModelInput:
        """Preprocess an image.

        Args:
            image: Image as read, shape (C, Z, Y, X).
            spacing: Voxel spacing in mm (z, y, x).
            orientation: Orientation code of the image, if it is known.
            channels: Numbers of the channels that the image has; all of them if None. Missing ones become 0 after
                normalisation, as channel dropout leaves them out in training.
            overwrite: Whether `image` may be changed, which saves memory.

        Raises:
            UserError: At the spacing of the plan, the image would be larger than any scan.
        """
        plan = self.plan
        if channels is not None:
            plan = plan.model_copy(update={"normalization": tuple(plan.normalization[number] for number in channels)})
        # `find_body` looks for the zeros of the original image.
        overwrite &= not any(scheme.inside_mask for scheme in plan.normalization)
        case = preprocess(image, spacing, plan, self.configuration, orientation=orientation, overwrite=overwrite)
        values = case.image
        if channels is not None:
            values = np.zeros((len(self.plan.channel_names), *case.placement.shape), case.image.dtype)
            values[list(channels)] = case.image
        body = find_body(image, case.placement, plan)
        return ModelInput(values, case.placement, body, is_complete=len(values) == len(image))

    def segment_cropped(self, case: ModelInput, *, mirroring: bool) -> np.ndarray:
        """Return the label values of a cropped case at its original resolution, in the plan's axis order (Z, Y, X).

        Args:
            case: The case as preprocessed for this model.
            mirroring: Average over all mirrorings.
        """
        strips = strips_for([self], [case.placement], mirroring=mirroring)
        slices = self.slices(case.image, case.placement, mirroring=mirroring, strips=strips, body=case.body)
        assembly = Assembly(self.plan.labels, case.placement)
        for where, values in zip(places(case.placement, strips), slices, strict=True):
            assembly.add(where, values)
        return assembly.label

    def slices(
        self, image: np.ndarray, placement: Placement, *, mirroring: bool, strips: int = 1, body: Body | None = None
    ) -> Iterator[Tensor]:
        """Yield probabilities (K, Y, X) for each slice of the cropped case at its original resolution.

        Args:
            image: Preprocessed image, shape (C, Z, Y, X), for a cascade with the previous stage as last channel.
            placement: Placement of the case.
            mirroring: Average over all mirrorings.
            strips: Number of strips of lines, processed one after another, each with all slices (`restore.places`
                gives their positions).
            body: Imaged part of the case, if known.
        """
        placed = self._placed(image, copies=1)
        for logits in self._logits(self.networks, placed, placement, mirroring, strips, body):
            yield to_probabilities(logits, self.plan.labels)

    def slices_by_fold(
        self, image: np.ndarray, placement: Placement, *, mirroring: bool, strips: int = 1, body: Body | None = None
    ) -> Iterator[Tensor]:
        """Yield logits (F, K, Y, X) of the F folds; parameters as for `slices`, which averages these logits.

        The logits of each fold are accumulated separately, so memory grows with the number of folds.
        """
        placed = self._placed(image, copies=len(self.networks))
        folds = [self._logits([network], placed, placement, mirroring, strips, body) for network in self.networks]
        for slices in zip(*folds, strict=True):
            yield torch.stack(slices)

    def _placed(self, image: np.ndarray, *, copies: int) -> Tensor:
        """Return the image on the device if there is room for it and, where it has to be padded, for padded copies."""
        channels, z, y, x = image.shape
        padded = self.window(mirroring=False).padded_shape((z, y, x))
        size = image.nbytes
        if padded != (z, y, x):
            size += copies * channels * math.prod(padded) * image.itemsize
        return place(image, self.device, size=size, inference_bytes=self.configuration.memory.inference_bytes)

    def _logits(
        self,
        networks: Sequence[nn.Module],
        image: Tensor,
        placement: Placement,
        mirroring: bool,
        strips: int,
        body: Body | None,
    ) -> Iterator[Tensor]:
        outputs, window = self.plan.labels.num_outputs, self.window(mirroring=mirroring)
        for strip in strips_of(placement, strips):
            slabs = logits_by_slab(
                networks,
                image,
                outputs,
                window,
                body=body,
                lines=lines_for(placement, strip),
                device=self.device,
            )
            yield from slices_at_original_resolution(slabs, placement, strip)


def strips_for(
    models: Sequence[Model],
    placements: Sequence[Placement],
    *,
    mirroring: bool,
    by_fold: bool = False,
    room: int | None = None,
) -> int:
    """Return the number of strips of lines in which a case is processed, so that all logits together fit into memory.

    Args:
        models: The models that process the case at the same time, in the same strips.
        placements: Placement of the case for each of them.
        mirroring: Average over all mirrorings.
        by_fold: Whether the logits of each fold are kept apart.
        room: Memory in bytes that the logits may take, so that the number is the same on every device. If None, it
            depends on what the device has free.
    """
    held = sum(
        (len(model.networks) if by_fold else 1)
        * model.window(mirroring=mirroring, as_planned=room is not None).held_bytes(
            model.plan.labels.num_outputs, placement.shape
        )
        for model, placement in zip(models, placements, strict=True)
    )
    lines = min(placement.shape[1] for placement in placements)
    return min(lines, -(-held // (room or room_for_logits(models[0].device))))


def _network(
    path: Path, checkpoint: Checkpoint, plan: Plan, configuration: Configuration, image_statistics: float
) -> nn.Module:
    """Return the network of a checkpoint, on the CPU, rewritten for prediction."""
    network = build_network(plan.network_plan(configuration), None)
    try:
        network.load_state_dict(checkpoint.network)
    except RuntimeError as error:  # torch lists every tensor in dozens of lines
        raise UserError(
            f"{path}: the weights do not fit the planned network. Train this fold again with --restart."
        ) from error
    fuse(network, image_statistics=image_statistics)
    return network.to(memory_format=memory_format_for(configuration.dims)).eval()
