"""A trained model, ready to segment: folds and configurations in memory, cases through them one by one."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from autocrossdim.data.images import Geometry, Image, read_image
from autocrossdim.inference.body import Body, find_body
from autocrossdim.inference.fuse import fuse
from autocrossdim.inference.postprocess import postprocess
from autocrossdim.inference.residence import Visiting, settle
from autocrossdim.inference.restore import (
    lines_for,
    places,
    probabilities,
    slices_at_original_resolution,
    strips_of,
    to_label,
)
from autocrossdim.inference.sliding_window import CPU_BATCH_VOXELS, HELD_BYTES, Window, logits_by_slab
from autocrossdim.inference.uncertainty import Uncertainty, UncertaintyMaps, Where, temper
from autocrossdim.models.source import open_model
from autocrossdim.networks.build import build_network
from autocrossdim.preprocessing.case import Placement, Spacing, preprocess
from autocrossdim.records.best import Best, KeepLargest
from autocrossdim.records.calibration import CaseScore
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.labels import Labels
from autocrossdim.records.plan import Configuration, Plan
from autocrossdim.system.device import CPU, choose_device, memory_format_for
from autocrossdim.system.errors import UserError


@dataclass
class Segmentation:
    """A segmentation on the image's grid.

    Attributes:
        label: label values, shape (Z, Y, X).
        probabilities: shape (K, Z, Y, X), float16, where asked for.
        uncertainty: maps and numbers, where asked for.
    """

    label: np.ndarray
    probabilities: np.ndarray | None = None
    uncertainty: Uncertainty | None = None


@dataclass
class Model:
    """The folds of one configuration, in eval mode on one device; those a GPU has no room for come when called."""

    plan: Plan
    configuration: Configuration
    networks: Sequence[nn.Module]
    device: torch.device = CPU

    @classmethod
    def load(cls, checkpoints: Sequence[Path], device: torch.device) -> "Model":
        """Load the folds of one configuration from their checkpoints.

        Raises:
            UserError: a checkpoint is missing, damaged or unfinished, or does not belong to the others.
        """
        return cls.of(((path, Checkpoint.read(path)) for path in checkpoints), device)

    @classmethod
    def of(cls, checkpoints: Iterable[tuple[Path, Checkpoint]], device: torch.device) -> "Model":
        """Build the folds of one configuration from checkpoints as they come, each with the file it is from.

        Raises:
            UserError: as `load`.
        """
        networks: list[nn.Module] = []
        plan, configuration = None, None
        for path, checkpoint in checkpoints:
            if not checkpoint.complete:
                epoch = checkpoint.run.epoch
                raise UserError(f"{path}: training stopped after epoch {epoch}. Finish it with `autocrossdim train`.")
            this = checkpoint.plan.configuration(checkpoint.configuration)
            if configuration is not None and not this.trains_like(configuration):
                raise UserError(
                    f"{path}: trained under another plan than the folds before. Train again with --restart."
                )
            plan, configuration = checkpoint.plan, this
            network = build_network(plan.network_plan(configuration), None)
            try:
                network.load_state_dict(checkpoint.network)
            except RuntimeError as error:  # torch tells it in dozens of lines
                raise UserError(
                    f"{path}: its weights are not those of the planned network. Train this fold again with --restart."
                ) from error
            fuse(network)
            network = network.to(memory_format=memory_format_for(configuration.dims)).eval()
            networks.append(settle(network, device, configuration.memory.inference_bytes + HELD_BYTES))
        if plan is None or configuration is None:
            raise UserError("No trained fold was given.")
        return cls(plan, configuration, networks, device)

    def window(self, mirroring: bool) -> Window:
        """Tiles as the plan's patch cuts them; a batch is what fitted into memory in training."""
        dims, batch = self.configuration.dims, self.configuration.batch_size
        if self.device.type == "cpu":
            batch = min(batch, CPU_BATCH_VOXELS // math.prod(self.configuration.patch_shape))
        return Window(
            dims=dims,
            patch=self.configuration.patch_shape,
            batch=max(1, batch),
            slices=self.configuration.slices,
            mirror_axes=tuple(range(dims)) if mirroring else (),
        )

    def strips(self, placement: Placement, mirroring: bool, members: int = 1) -> int:
        """Return in how many strips of lines a case is done, `members` (folds) being kept apart."""
        return self.window(mirroring).strips(self.plan.labels.num_outputs * members, placement.shape)

    def slices(
        self, image: np.ndarray, placement: Placement, mirroring: bool, strips: int = 1, body: Body | None = None
    ) -> Iterator[Tensor]:
        """Yield probabilities (K, Y, X) for each slice of the cropped case at its original resolution.

        Args:
            image: preprocessed, shape (C, Z, Y, X).
            placement: of the case.
            mirroring: average over all mirrorings.
            strips: strips of lines, one after the other, each with all slices (`restore.places` says where they go).
            body: of the case, if known.
        """
        for logits in self._logits(self.networks, image, placement, mirroring, strips, body):
            yield probabilities(logits, self.plan.labels)

    def slices_by_fold(
        self, image: np.ndarray, placement: Placement, mirroring: bool, strips: int = 1, body: Body | None = None
    ) -> Iterator[Tensor]:
        """Yield logits (F, K, Y, X), fold by fold; otherwise as `slices`, which shows their mean.

        Each fold has accumulators of its own, so this takes as many times the memory as there are folds.
        """
        folds = [self._logits([network], image, placement, mirroring, strips, body) for network in self.networks]
        for slices in zip(*folds, strict=True):
            yield torch.stack(slices)

    def _logits(
        self,
        networks: Sequence[nn.Module],
        image: np.ndarray,
        placement: Placement,
        mirroring: bool,
        strips: int,
        body: Body | None,
    ) -> Iterator[Tensor]:
        outputs, window = self.plan.labels.num_outputs, self.window(mirroring)
        for strip in strips_of(placement, strips):
            lines = lines_for(placement, strip)
            slabs = logits_by_slab(networks, torch.from_numpy(image), outputs, window, body, lines, self.device)
            yield from slices_at_original_resolution(slabs, placement, strip)


@dataclass
class Prepared:
    """A case as one model takes it: `image` (C, Z, Y, X), its placement, and its body, if known."""

    image: np.ndarray
    placement: Placement
    body: Body | None


class Assembly:
    """Takes the slices of probabilities of one case, in order, and puts labels back on the original grid."""

    def __init__(
        self, labels: Labels, placement: Placement, keep_probabilities: bool = False, temperature: float = 1.0
    ) -> None:
        """Make room for the case.

        Args:
            labels: turn probabilities into values.
            placement: of the case; crop and axis order are the same for all models of a dataset.
            keep_probabilities: also keep them, float16, on the original grid.
            temperature: of the probabilities that are kept; it does not touch the labels.
        """
        self.labels, self.placement, self.temperature = labels, placement, temperature
        shape = placement.cropped_shape
        self.label = np.zeros(shape, dtype=np.min_scalar_type(labels.values[-1]))
        self._kept = np.zeros((labels.num_outputs, *shape), dtype=np.float16) if keep_probabilities else None

    def add(self, where: Where, values: Tensor) -> None:
        """Add the probabilities (K, Y, X) of the lines `where` says."""
        self.label[where] = to_label(values, self.labels)
        if self._kept is not None:
            self._kept[:, *where] = temper(values, self.labels, self.temperature).cpu().numpy()

    def segmentation(self) -> Segmentation:
        """Return the case on its original grid."""
        label = self.placement.restore(self.label)
        if self._kept is None:
            return Segmentation(label)
        whole = self.placement.restore(self._kept)
        if not self.labels.has_regions:
            # What was cropped away is background for certain.
            outside = self.placement.restore(np.ones(self.label.shape, dtype=bool)) == 0
            whole[0][outside] = 1
        return Segmentation(label, whole)


def assemble(
    streams: Sequence[Iterator[Tensor]],
    labels: Labels,
    placement: Placement,
    keep_probabilities: bool = False,
    temperature: float = 1.0,
    strips: int = 1,
) -> Segmentation:
    """Average the slices of several models and put labels back on the original grid.

    Args:
        streams: a model each; slices of probabilities (K, Y, X) in the same order.
        labels: as for `Assembly`.
        placement: as for `Assembly`.
        keep_probabilities: as for `Assembly`.
        temperature: as for `Assembly`.
        strips: in which the streams come.
    """
    assembly = Assembly(labels, placement, keep_probabilities, temperature)
    for where, slices in zip(places(placement, strips), zip(*streams, strict=True), strict=True):
        assembly.add(where, average(slices))
    return assembly.segmentation()


def average(slices: Sequence[Tensor]) -> Tensor:
    """Return the mean of several models' probabilities of one slice."""
    return torch.stack(list(slices)).mean(dim=0) if len(slices) > 1 else slices[0]


class Predictor:
    """Segments images with one or several models. Holds no state between calls, so threads may share it.

    Attributes:
        models: a configuration each, all planned for the same dataset.
        mirroring: average over mirrored versions of the image.
        best: what `find_best` found out about these models: temperature, case score, post-processing; None if it has
            not been run or chose others.
        steps: post-processing that is applied.
        notes: what was found beside the models and what follows from it, in sentences.
    """

    def __init__(
        self,
        models: Sequence[Model],
        mirroring: bool = True,
        best: Best | None = None,
        postprocessing: bool = True,
        notes: Sequence[str] = (),
    ) -> None:
        self.models = list(models)
        self.mirroring = mirroring
        self.best = best
        self.steps: tuple[KeepLargest, ...] = best.postprocessing if best is not None and postprocessing else ()
        self.notes = list(notes)
        visiting = sum(isinstance(network, Visiting) for model in self.models for network in model.networks)
        if visiting:
            self.notes.append(
                f"{visiting} of {self.members} networks have no room on the GPU beside a batch of tiles and take "
                "turns; fewer folds or configurations (--fold, --config) are faster."
            )
        if best is not None:
            applied = ", ".join(step.name for step in self.steps)
            self.notes.append(f"Post-processing: only the largest component of {applied}." if applied else _none(best))

    @classmethod
    def load(
        cls,
        model: str | Path,
        *,
        work: str | Path | None = None,
        fold: Sequence[int | str] = (),
        config: Sequence[str] = (),
        device: str = "auto",
        mirroring: bool = True,
        postprocessing: bool = True,
    ) -> "Predictor":
        """Load trained folds, and what `find_best` found out about them.

        Args:
            model: a dataset trained in `work`, the folder of its results, a model folder, or an exported file.
            work: where datasets' results lie.
            fold: folds to average; all trained ones if empty.
            config: configurations to average; what `best.json`, else the plan, names if empty.
            device: `auto`, `cpu` or `cuda`.
            mirroring: average over mirrored versions of the image.
            postprocessing: apply that of `best.json`, if it is about the same configurations.

        Raises:
            UserError: nothing trained is there, a checkpoint is damaged or unfinished, or `best.json` rests on
                checkpoints that have changed since.
        """
        chosen = choose_device(device)
        source = open_model(model, work=work)
        models = [Model.of(checkpoints, chosen) for checkpoints in source.checkpoints(fold=fold, config=config)]
        best, notes = source.best_for(fold=fold, config=config)
        return cls(models, mirroring, best, postprocessing, notes)

    @property
    def plan(self) -> Plan:
        """The dataset's plan."""
        return self.models[0].plan

    @property
    def members(self) -> int:
        """Networks that are averaged: folds of all configurations."""
        return sum(len(model.networks) for model in self.models)

    @property
    def temperature(self) -> float:
        """Of the probabilities: 1 if they were not calibrated."""
        return 1.0 if self.best is None else self.best.calibration.temperature

    @property
    def case_score(self) -> CaseScore:
        """From a case's confidence to the Dice to expect; the confidence itself if it was not calibrated."""
        return CaseScore() if self.best is None else self.best.case_score

    def __call__(
        self,
        array: np.ndarray,
        spacing: tuple[float, float, float],
        keep_probabilities: bool = False,
        uncertainty: bool = False,
    ) -> Segmentation:
        """Segment one image.

        Args:
            array: shape (C, Z, Y, X), raw intensities.
            spacing: mm (z, y, x).
            keep_probabilities: also return the probabilities, calibrated where `find_best` was run.
            uncertainty: also return how sure it is.

        Raises:
            UserError: as `prepare`.
        """
        return self.segment(self.prepare(array, spacing), keep_probabilities, uncertainty)

    def prepare(self, array: np.ndarray, spacing: Spacing) -> list[Prepared]:
        """Bring one image to where each model works; needs no network, so it can be done while another is segmented.

        Args:
            array: shape (C, Z, Y, X), raw intensities.
            spacing: mm (z, y, x).

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
        prepared = []
        for model in self.models:
            case = preprocess(array, spacing, model.plan, model.configuration)
            prepared.append(Prepared(case.image, case.placement, find_body(array, case.placement, model.plan)))
        return prepared

    def segment(
        self, prepared: Sequence[Prepared], keep_probabilities: bool = False, uncertainty: bool = False
    ) -> Segmentation:
        """Segment what `prepare` returned; otherwise as a call."""
        strips = max(
            model.strips(case.placement, self.mirroring, len(model.networks) if uncertainty else 1)
            for model, case in zip(self.models, prepared, strict=True)
        )
        streams = []
        for model, case in zip(self.models, prepared, strict=True):
            slices = model.slices_by_fold if uncertainty else model.slices
            streams.append(slices(case.image, case.placement, self.mirroring, strips, case.body))
        placement = prepared[0].placement
        together = self._with_uncertainty if uncertainty else assemble
        segmentation = together(streams, self.plan.labels, placement, keep_probabilities, self.temperature, strips)
        segmentation.label = postprocess(segmentation.label, self.steps)
        return segmentation

    def _with_uncertainty(
        self,
        streams: Sequence[Iterator[Tensor]],
        labels: Labels,
        placement: Placement,
        keep_probabilities: bool,
        temperature: float,
        strips: int,
    ) -> Segmentation:
        """As `assemble`, from slices of logits (F, K, Y, X) with the folds apart."""
        assembly = Assembly(labels, placement, keep_probabilities, temperature)
        maps = UncertaintyMaps(labels, placement, self.members)
        for where, folds in zip(places(placement, strips), zip(*streams, strict=True), strict=True):
            values = average([probabilities(logits.mean(dim=0), labels) for logits in folds])
            assembly.add(where, values)
            members = [to_label(probabilities(logits.movedim(0, 1), labels), labels) for logits in folds]
            maps.add(where, temper(values, labels, temperature), assembly.label[where], np.concatenate(members))
        segmentation = assembly.segmentation()
        segmentation.uncertainty = maps.result()
        return segmentation

    def predict_files(
        self, paths: Sequence[Path], keep_probabilities: bool = False, uncertainty: bool = False
    ) -> tuple[Image, Segmentation]:
        """Read one case, one file a channel, and segment it.

        Raises:
            UserError: a file cannot be read, or what it holds cannot be segmented.
        """
        image = read_image(paths)
        try:
            return image, self(image.array, image.geometry.spacing, keep_probabilities, uncertainty)
        except UserError as error:
            raise UserError(f"{paths[0]}: {error}") from error

    def prepare_files(self, paths: Sequence[Path]) -> tuple[Geometry, list[Prepared]]:
        """Read one case, one file a channel, and prepare it for `segment`; what was read is not kept.

        Raises:
            UserError: as `predict_files`.
        """
        image = read_image(paths)
        try:
            return image.geometry, self.prepare(image.array, image.geometry.spacing)
        except UserError as error:
            raise UserError(f"{paths[0]}: {error}") from error


def _none(best: Best) -> str:
    return "Post-processing: none" + (", as asked for." if best.postprocessing else "; it did not help held-out cases.")
