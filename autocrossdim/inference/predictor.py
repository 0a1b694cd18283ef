"""A trained model, ready to segment: folds and configurations in memory, cases through them one by one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autocrossdim.checkpoint import Checkpoint
from autocrossdim.data.images import Image, read_image
from autocrossdim.data.labels import Labels
from autocrossdim.device import choose_device
from autocrossdim.errors import UserError
from autocrossdim.inference.inputs import find_checkpoints
from autocrossdim.inference.restore import probabilities, slices_at_original_resolution, to_label
from autocrossdim.inference.sliding_window import Window, logits_by_slab
from autocrossdim.networks.build import build_network
from autocrossdim.plan import Configuration, Plan
from autocrossdim.preprocessing.case import Placement, preprocess


@dataclass
class Segmentation:
    """`label` (Z, Y, X) on the image's grid and, where asked for, `probabilities` (K, Z, Y, X), float16."""

    label: np.ndarray
    probabilities: np.ndarray | None = None


@dataclass
class Model:
    """The folds of one configuration, in eval mode on one device."""

    plan: Plan
    configuration: Configuration
    networks: Sequence[nn.Module]

    @classmethod
    def load(cls, checkpoints: Sequence[Path], device: torch.device) -> "Model":
        """Load the folds of one configuration from their checkpoints.

        Raises:
            UserError: a checkpoint is missing, damaged or unfinished, or does not belong to the others.
        """
        networks, plan, configuration = [], None, None
        for path in checkpoints:
            checkpoint = Checkpoint.read(path, device)
            if not checkpoint.complete:
                epoch = checkpoint.progress["epoch"]
                raise UserError(f"{path}: training stopped after epoch {epoch}. Finish it with `autocrossdim train`.")
            this = checkpoint.plan.configuration(checkpoint.configuration)
            if configuration is not None and not this.trains_like(configuration):
                raise UserError(
                    f"{path}: trained under another plan than {checkpoints[0]}. Train again with --restart."
                )
            plan, configuration = checkpoint.plan, this
            network = build_network(plan.network_plan(configuration), None)
            network.load_state_dict(checkpoint.network)
            networks.append(network.to(device).eval())
        if plan is None or configuration is None:
            raise UserError("No trained fold was given.")
        return cls(plan, configuration, networks)

    def window(self, mirroring: bool) -> Window:
        """Tiles as the plan's patch cuts them."""
        dims = self.configuration.dims
        return Window(
            dims=dims,
            patch=self.configuration.patch_shape,
            batch=max(1, self.configuration.batch_size),
            slices=self.configuration.slices,
            mirror_axes=tuple(range(dims)) if mirroring else (),
        )

    def slices(self, image: np.ndarray, placement: Placement, mirroring: bool) -> Iterator[Tensor]:
        """Yield probabilities (K, Y, X) for each slice of the cropped case at its original resolution.

        Args:
            image: preprocessed, shape (C, Z, Y, X).
            placement: of the case.
            mirroring: average over all mirrorings.
        """
        outputs = self.plan.labels.num_outputs
        slabs = logits_by_slab(self.networks, torch.from_numpy(image), outputs, self.window(mirroring))
        for logits in slices_at_original_resolution(slabs, placement):
            yield probabilities(logits, self.plan.labels)


def assemble(
    streams: Sequence[Iterator[Tensor]],
    labels: Labels,
    placement: Placement,
    keep_probabilities: bool = False,
) -> Segmentation:
    """Average the slices of several models and put labels back on the original grid.

    Args:
        streams: a model each; slices of probabilities (K, Y, X) in the same order.
        labels: turn probabilities into values.
        placement: of the case; crop and axis order are the same for all models of a dataset.
        keep_probabilities: also return them, float16, on the original grid.
    """
    shape = placement.cropped_shape
    label = np.zeros(shape, dtype=np.int32)
    kept = np.zeros((labels.num_outputs, *shape), dtype=np.float16) if keep_probabilities else None
    for z, slices in enumerate(zip(*streams, strict=True)):
        mean = torch.stack(list(slices)).mean(dim=0) if len(slices) > 1 else slices[0]
        label[z] = to_label(mean, labels)
        if kept is not None:
            kept[:, z] = mean.cpu().numpy()
    if kept is None:
        return Segmentation(placement.restore(label))
    whole = placement.restore(kept)
    if not labels.has_regions:
        # What was cropped away is background for certain.
        outside = placement.restore(np.ones(shape, dtype=bool)) == 0
        whole[0][outside] = 1
    return Segmentation(placement.restore(label), whole)


class Predictor:
    """Segments images with one or several models. Holds no state between calls, so threads may share it.

    Attributes:
        models: a configuration each, all planned for the same dataset.
        mirroring: average over mirrored versions of the image.
    """

    def __init__(self, models: Sequence[Model], mirroring: bool = True) -> None:
        self.models = list(models)
        self.mirroring = mirroring

    @classmethod
    def load(
        cls,
        model: str | Path,
        work: Path | None = None,
        folds: Sequence[int | str] = (),
        configurations: Sequence[str] = (),
        device: str = "auto",
        mirroring: bool = True,
    ) -> "Predictor":
        """Load trained folds.

        Args:
            model: a dataset trained in `work`, the folder of its results, or a model folder.
            work: where datasets' results lie.
            folds: folds to average; all trained ones if empty.
            configurations: configurations to average; what `best.json`, else the plan, names if empty.
            device: `auto`, `cpu` or `cuda`.
            mirroring: average over mirrored versions of the image.

        Raises:
            UserError: nothing trained is there, or a checkpoint is damaged or unfinished.
        """
        checkpoints = find_checkpoints(model, work, folds, configurations)
        chosen = choose_device(device)
        return cls([Model.load(paths, chosen) for paths in checkpoints], mirroring)

    @property
    def plan(self) -> Plan:
        """The dataset's plan."""
        return self.models[0].plan

    def __call__(
        self, array: np.ndarray, spacing: tuple[float, float, float], keep_probabilities: bool = False
    ) -> Segmentation:
        """Segment one image.

        Args:
            array: shape (C, Z, Y, X), raw intensities.
            spacing: mm (z, y, x).
            keep_probabilities: also return the probabilities.

        Raises:
            UserError: the number of channels is not the one trained on, a voxel is NaN or infinite, or the spacing
                cannot be meant.
        """
        channels = self.plan.channel_names
        if array.ndim != 4 or array.shape[0] != len(channels):
            raise UserError(
                f"An image of shape {array.shape} was given; the model needs (C, Z, Y, X) with {len(channels)} "
                f"channel(s): {', '.join(channels)}."
            )
        # The network would answer NaN with background everywhere.
        broken = array.size - int(np.isfinite(array).sum())
        if broken:
            raise UserError(f"{broken} of {array.size} voxels are NaN or infinite. Replace them (by 0?).")
        streams, placement = [], None
        for model in self.models:
            case = preprocess(array, spacing, model.plan, model.configuration)
            placement = case.placement
            streams.append(model.slices(case.image, case.placement, self.mirroring))
        assert placement is not None
        return assemble(streams, self.plan.labels, placement, keep_probabilities)

    def predict_files(self, paths: Sequence[Path], keep_probabilities: bool = False) -> tuple[Image, Segmentation]:
        """Read one case, one file a channel, and segment it.

        Raises:
            UserError: a file cannot be read, or what it holds cannot be segmented.
        """
        image = read_image(paths)
        try:
            return image, self(image.array, image.geometry.spacing, keep_probabilities)
        except UserError as error:
            raise UserError(f"{paths[0]}: {error}") from error
