"""Training patches, made of the regions that were read for them: in a worker process, or on the device of training."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autocrossdim.records.labels import Labels
from autocrossdim.records.plan import Configuration
from trainers.augment import change_intensities, draw_mirroring, drop_channels
from trainers.settings import Settings
from trainers.soft import soft_target
from trainers.stage import perturb
from trainers.strength import STANDARD, STRENGTHS
from trainers.targets import Targets
from trainers.warp import Warp, apply_warp

UNLABELLED_CHANGES = 3  # times that intensities are changed for the network that a teacher guides (stronger: UniMatch)


@dataclass(frozen=True)
class Region:
    """What was read for a patch: the patch itself, or a larger box if it will be warped.

    Attributes:
        image: Shape (C, *source), float32; in 2D, neighbouring slices are channels.
        label: Label values, shape (*source); for a cascade (2, *source), with the segmentation by the previous stage.
        soft_label: The teachers' probabilities (F, *source), float32; None without teachers.
        annotated: Names of the labels that were annotated in the case; None if all were.
        has_previous_stage: Whether the case has a segmentation by a previous stage.
        warp: Spatial transform; None if there is none.
        random: Source of randomness for everything else.
    """

    image: np.ndarray
    label: np.ndarray
    soft_label: np.ndarray | None
    annotated: Sequence[str] | None
    has_previous_stage: bool
    warp: Warp | None
    random: np.random.Generator


@dataclass(frozen=True)
class Patch:
    """A training patch.

    Attributes:
        image: Shape (C, *patch), float32, on the device; masks of the previous stage of a cascade follow the channels.
        target: Target as in a `Batch`, without the axis of the batch, in the memory of the CPU.
        clean: The image before its intensities were changed; None unless the cases are unlabelled.
    """

    image: Tensor
    target: np.ndarray
    clean: Tensor | None


class PatchMaker:
    """Makes patches of regions.

    Args:
        configuration: Patch size and mirrored axes.
        labels: Labels that turn values into targets.
        class_sets: Sets of classes that targets may name, see `trainers.partial`.
        settings: Augmentation.
        unlabelled: Whether the cases have no labels, so that intensities are changed more strongly.
    """

    def __init__(
        self,
        *,
        configuration: Configuration,
        labels: Labels,
        class_sets: Sequence[Sequence[int]],
        settings: Settings,
        unlabelled: bool,
    ) -> None:
        self.configuration, self.labels, self.settings = configuration, labels, settings
        self.targets = Targets(labels, class_sets)
        self.augmentation = settings.augmentation or configuration.augmentation
        self.strength = STRENGTHS.get(self.augmentation)
        self.unlabelled = unlabelled

    def __call__(self, region: Region, device: torch.device) -> Patch:
        """Warp a region, change its intensities, mirror it and drop channels on a device.

        Everything that is drawn is the same on every device. Noise is not: each type of device has its own generator.
        """
        patch, settings, random = self.configuration.patch_size, self.settings, region.random
        image, label = torch.from_numpy(region.image).to(device), region.label
        soft = None if region.soft_label is None else torch.from_numpy(region.soft_label).to(device)
        if region.warp is not None:
            # Soft labels are interpolated along with the image.
            values = image if soft is None else torch.cat([image, soft])
            values, label = apply_warp(values, label, patch, region.warp)
            image, soft = values[: len(image)], None if soft is None else values[len(image) :]
        clean = image.clone() if self.unlabelled else None
        if self.strength is not None:
            for _ in range(UNLABELLED_CHANGES if self.unlabelled else 1):
                change_intensities(image, random, STANDARD if self.unlabelled else self.strength)
            axes = draw_mirroring(len(patch), random, self.configuration.mirrored)
            label = np.flip(label, axes)
            image = image.flip(axes)
            clean, soft = (None if each is None else each.flip(axes) for each in (clean, soft))
        if settings.channel_dropout:
            drop_channels(image, settings.channel_dropout, random, self.configuration.slices)
        if region.has_previous_stage:
            label, previous = label
            image = torch.cat([image, torch.from_numpy(self._masks(previous, random)).to(device)])
        target = self.targets(label, region.annotated)
        if soft is not None:
            target = soft_target(target, soft.cpu().numpy(), regions=self.labels.has_regions)
        return Patch(image, target, clean)

    def _masks(self, label: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return one mask per label or region (R, *patch), float32, of the previous stage's segmentation (*patch)."""
        masks, settings = self.labels.to_regions(label), self.settings
        if self.augmentation != "none":
            perturb(
                masks,
                random,
                empty=settings.stage_empty,
                morphology=settings.stage_morphology,
                component=settings.stage_component,
                exclusive=not self.labels.has_regions,
            )
        return masks.astype(np.float32)
