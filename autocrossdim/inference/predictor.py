"""Segmenting images with one model, or with an ensemble of models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from autocrossdim.data.dataset import Case
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.writing.formats import DEFAULT, find
from autocrossdim.data.writing.results import Results
from autocrossdim.inference.assembly import Assembly, average
from autocrossdim.inference.inputs import (
    ImageSource,
    Spacing,
    channel_numbers,
    check_image,
    geometry_warnings,
    name_of,
    read_source,
)
from autocrossdim.inference.likeness import compare_with_training
from autocrossdim.inference.model import Model, ModelInput, strips_for
from autocrossdim.inference.notes import notes_on
from autocrossdim.inference.postprocess import postprocess
from autocrossdim.inference.restore import places, to_label, to_probabilities
from autocrossdim.inference.segmentation import Segmentation
from autocrossdim.inference.uncertainty import UncertaintyMaps, Where, temper
from autocrossdim.models.source import open_model
from autocrossdim.records.best import Best, KeepLargest
from autocrossdim.records.calibration import CaseScore
from autocrossdim.records.codes import LabelCode
from autocrossdim.records.likeness import Familiarity
from autocrossdim.records.origin import STAGE_ONLY, Origin
from autocrossdim.records.plan import Plan
from autocrossdim.records.same_plan import SamePlan
from autocrossdim.system.console import warn
from autocrossdim.system.device import choose_device
from autocrossdim.system.errors import UserError
from autocrossdim.system.renamed import renamed
from autocrossdim.system.text import counted


@dataclass(frozen=True)
class Prepared:
    """An image ready for the networks.

    Attributes:
        geometry: Geometry of the image.
        inputs: The image as preprocessed for each model.
        stages: The image as preprocessed for each previous stage that has not segmented it yet, by configuration.
        warnings: Warnings for the user that name the image: unclear orientation, spacing far from that of training.
    """

    geometry: Geometry
    inputs: tuple[ModelInput, ...]
    stages: Mapping[str, ModelInput] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Predictor:
    """Segments images with an ensemble. It keeps no state between calls, so threads may share it.

    Args:
        models: One model per configuration, all of the same dataset.
        stages: Previous stage of each cascade among the models; it segments an image first, and is not averaged.
        mirroring: Average over mirrored versions of the image (test-time augmentation).
        best: Result of `find_best` for these models: temperature, calibration of the expected Dice, reference
            cases and post-processing; None if it does not apply to them.
        postprocessing: Apply the post-processing of `best`.
        notes: Sentences for the user about where the models come from.
        codes: Label -> its concept in a terminology such as SNOMED CT, for the labels that have one.

    Attributes:
        stages: Previous stages of cascades, by configuration.
        steps: Post-processing that is applied.
        notes: Sentences for the user about the models and what is applied.

    Example:
        >>> predictor = Predictor.load("autocrossdim_work/Dataset004_Hippocampus")
        >>> segmentation = predictor("hippocampus_001_0000.nii.gz")
        >>> SimpleITK.WriteImage(segmentation.to_sitk(), "hippocampus_001.nii.gz")

    Raises:
        UserError: The previous stage of a cascade is missing.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        stages: Sequence[Model] = (),
        mirroring: bool = True,
        best: Best | None = None,
        postprocessing: bool = True,
        notes: Sequence[str] = (),
        codes: Mapping[str, LabelCode] | None = None,
    ) -> None:
        if isinstance(models, str | Path):
            raise TypeError(f"Predictor() takes loaded models. Use Predictor.load({str(models)!r}).")
        self.models = list(models)
        self.stages = {stage.configuration.name: stage for stage in stages}
        for model in models:
            stage = model.configuration.previous_stage
            if stage is not None and stage not in self.stages:
                raise UserError(
                    f"{model.configuration.name} needs the segmentation by {stage}. Give it as one of `stages`."
                )
        self.mirroring = mirroring
        self.best = best
        self.codes = dict(codes or {})
        self.steps: tuple[KeepLargest, ...] = best.postprocessing if best is not None and postprocessing else ()
        self.notes = [*notes, *notes_on(self._all_models, best, self.steps)]

    @classmethod
    @renamed(folds="fold", configurations="config")
    def load(
        cls,
        model: str | Path | int,
        *,
        work: str | Path | None = None,
        fold: int | str | Sequence[int | str] = (),
        config: str | Sequence[str] = (),
        device: str = "auto",
        mirroring: bool = True,
        image_statistics: float | None = None,
        postprocessing: bool = True,
    ) -> "Predictor":
        """Load trained folds, and the result of `find_best` for them.

        Args:
            model: Dataset trained in `work`, directory of its results, model directory, exported file, or
                `hf://OWNER/NAME[@REVISION]` on the Hugging Face Hub.
            work: Directory of all results (default: `$AUTOCROSSDIM_WORK`, else `./autocrossdim_work`).
            fold: Fold or folds to average; all trained folds if empty.
            config: Configuration or configurations to average; those that `best.json`, else the plan, names if empty.
            device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.
            mirroring: Average over mirrored versions of the image (test-time augmentation).
            image_statistics: Share of each image's own statistics in batch norms, from 0 to 1, instead of the plan's;
                helps if its contrast differs from that of the training images.
            postprocessing: Apply the post-processing of `best.json` if it was chosen for the same configurations.

        Raises:
            UserError: Nothing is trained, a checkpoint is damaged or incomplete, the checkpoints were trained under
                different plans, `best.json` is outdated, or `image_statistics` is not from 0 to 1 or has no effect.
        """
        folds = (fold,) if isinstance(fold, int | str) else tuple(fold)
        configurations = (config,) if isinstance(config, str) else tuple(config)
        if image_statistics is not None and not 0 <= image_statistics <= 1:
            raise UserError(f"--image-statistics {image_statistics:g}: use a share from 0 to 1, such as 0.2.")
        chosen = choose_device(device)
        source = open_model(model, work=work)
        best, notes = source.best_for(fold=folds, config=configurations)
        together = SamePlan()
        models = [
            Model.of(checkpoints, chosen, together=together, image_statistics=image_statistics)
            for checkpoints in source.checkpoints(fold=folds, config=configurations)
        ]
        loaded = {model.configuration.name: model for model in models}
        needed = dict.fromkeys(model.configuration.previous_stage for model in models)
        stages = [
            loaded.get(name)
            or Model.of(source.stage(name, fold=folds), chosen, together=together, image_statistics=image_statistics)
            for name in needed
            if name is not None
        ]
        return cls(
            models,
            stages=stages,
            mirroring=mirroring,
            best=best,
            postprocessing=postprocessing,
            notes=notes,
            codes=source.codes,
        )

    def __repr__(self) -> str:
        names = " + ".join(model.configuration.name for model in self.models)
        mirroring = "with" if self.mirroring else "without"
        return f"<Predictor: {names} of {self.plan.dataset}, {counted(self.members, 'network')}, {mirroring} mirroring>"

    @property
    def plan(self) -> Plan:
        """Plan of the dataset."""
        return self.models[0].plan

    @property
    def accepts_incomplete(self) -> bool:
        """Whether all networks were trained with channel dropout, so that images may lack some of the channels."""
        return all(model.channel_dropout for model in self._all_models)

    @property
    def _all_models(self) -> list[Model]:
        """The models and the previous stages that are not among them."""
        names = {model.configuration.name for model in self.models}
        return [*self.models, *(stage for name, stage in self.stages.items() if name not in names)]

    @property
    def members(self) -> int:
        """Number of networks that are averaged: the folds of all configurations."""
        return sum(len(model.networks) for model in self.models)

    @property
    def temperature(self) -> float:
        """Temperature of the probabilities; 1 if they are not calibrated."""
        return 1.0 if self.best is None else self.best.calibration.temperature

    @property
    def origin(self) -> Origin:
        """What is recorded beside each segmentation."""
        averaged = {model.configuration.name for model in self.models}
        return Origin(
            networks={
                f"{name}/fold_{fold}{'' if name in averaged else STAGE_ONLY}": digest
                for name, model in ((model.configuration.name, model) for model in self._all_models)
                for fold, digest in zip(model.folds, model.digests, strict=False)
            },
            mirroring=self.mirroring,
            image_statistics=max(model.image_statistics for model in self._all_models),
            postprocessing=self.steps,
            temperature=self.temperature,
            case_score=self.case_score,
        )

    @property
    def case_score(self) -> CaseScore:
        """Map from the confidence of a case to its expected Dice; the identity if it is not calibrated."""
        return CaseScore() if self.best is None else self.best.case_score

    @renamed(array="image", keep_probabilities="probabilities")
    def __call__(
        self,
        image: ImageSource,
        *,
        spacing: Spacing | None = None,
        probabilities: bool = False,
        uncertainty: bool = False,
    ) -> Segmentation:
        """Segment one image, with a warning if its orientation is unclear or its spacing far from that of training.

        Args:
            image: Path of an image or of the directory of a DICOM series; a 2D or 3D SimpleITK image, whose components
                are channels if it is a vector image; a list of paths or SimpleITK images, one per channel, with None
                for a missing one if the model was trained with channel dropout; or an array of shape (C, Z, Y, X) in
                the orientation of the training data.
            spacing: Voxel spacing in mm (z, y, x); required for an array, not allowed otherwise.
            probabilities: Also return the probabilities, calibrated if `find_best` chose this model.
            uncertainty: Also return entropy, disagreement, confidence and agreement.

        Returns:
            The segmentation on the grid of the image; `to_sitk()` gives it as a SimpleITK image.

        Raises:
            UserError: The image cannot be read, or the model cannot be applied to it.
        """
        prepared = self.prepare(image, spacing=spacing)
        for warning in prepared.warnings:
            warn(warning)
        return self.segment(prepared, probabilities=probabilities, uncertainty=uncertainty)

    def prepare(self, image: ImageSource, *, spacing: Spacing | None = None) -> Prepared:
        """Read and preprocess one image for each model; uses no network, so it can run beside `segment`.

        Args:
            image: As for a call.
            spacing: As for a call.

        Raises:
            UserError: The image cannot be read, it has another number of channels than in training, a voxel is NaN or
                infinite, or its spacing is implausible.
        """
        plan = self.plan
        loaded = read_source(image, spacing=spacing, channels=len(plan.channel_names), ending=plan.file_ending)
        try:
            channels = channel_numbers(image)
            check_image(loaded.array, image, plan.channel_names, incomplete=self.accepts_incomplete)
            geometry = loaded.geometry
            # A caller's image must not change, and further models need the original intensities.
            overwrite = name_of(image) is not None and len(self._all_models) == 1
            inputs = {
                model.configuration.name: model.prepare(
                    loaded.array,
                    geometry.spacing,
                    orientation=geometry.orientation,
                    channels=channels,
                    overwrite=overwrite,
                )
                for model in self._all_models
            }
        except UserError as error:
            if (name := name_of(image)) is None:
                raise
            raise UserError(f"{name}: {error}") from error
        return Prepared(
            geometry,
            tuple(inputs[model.configuration.name] for model in self.models),
            {name: inputs[name] for name in self.stages},
            geometry_warnings(image, geometry, plan, [model.configuration for model in self.models]),
        )

    def segment(self, prepared: Prepared, *, probabilities: bool = False, uncertainty: bool = False) -> Segmentation:
        """Segment what `prepare` returned; otherwise as a call."""
        prepared = self.after_stages(prepared)
        labels, placement = self.plan.labels, prepared.inputs[0].placement
        assembly = Assembly(labels, placement, probabilities=probabilities, temperature=self.temperature)
        maps = UncertaintyMaps(labels, placement, members=self.members) if uncertainty else None
        for where, slices in self._slices(prepared, by_fold=uncertainty):
            if maps is None:
                assembly.add(where, average(slices))
                continue
            values = average([to_probabilities(logits.mean(dim=0), labels) for logits in slices])
            assembly.add(where, values)
            members = [to_label(to_probabilities(logits.movedim(0, 1), labels), labels) for logits in slices]
            calibrated = temper(values, labels, self.temperature)
            maps.add(where, calibrated, label=assembly.label[where], members=np.concatenate(members))
        return Segmentation(
            label=postprocess(assembly.restored_label(), self.steps),
            geometry=prepared.geometry,
            probabilities=assembly.restored_probabilities(),
            uncertainty=None if maps is None else maps.result(),
            familiarity=self.compare(prepared),
        )

    def write(
        self,
        segmentation: Segmentation,
        output: str | Path,
        *,
        name: str,
        image: str | Path | None = None,
        format: str = DEFAULT,
    ) -> Path:
        """Write a segmentation as `autocrossdim.predict` does, with its volumes.

        Args:
            segmentation: The result of a call.
            output: Directory for the segmentation.
            name: Name of the case.
            image: Directory of the DICOM series that was segmented, for the formats that refer to it.
            format: `image`, `dicom-seg`, `rtstruct`, `seg.nrrd` or `bids`.

        Returns:
            Path of the segmentation.

        Raises:
            UserError: There is no such format, its packages are missing, or the case cannot be written in it.
        """
        case = Case(name, () if image is None else (Path(image),), None)
        chosen = find(format)
        chosen.check([case])
        plan = self.plan
        results = Results(Path(output), plan.labels, plan.file_ending, chosen, codes=self.codes, origin=self.origin)
        results.write(case, segmentation.label, segmentation.geometry)
        results.finish([case])
        return results.path(case)

    def compare(self, prepared: Prepared) -> Familiarity | None:
        """Compare what `prepare` returned with the training data, without segmenting it (previous stages do).

        Returns:
            How like the training data the image is; None if the models have no reference cases, if the image lacks a
            channel, which the training data do not, or with other `image_statistics` than the plan's.
        """
        likeness = None if self.best is None else self.best.likeness
        # With other statistics, the features are not comparable to those of the training data.
        comparable = all(model.is_as_validated for model in self.models)
        if likeness is None or not comparable or not all(case.is_complete for case in prepared.inputs):
            return None
        return compare_with_training(likeness, self.models, self.after_stages(prepared).inputs)

    def after_stages(self, prepared: Prepared) -> Prepared:
        """Return what `prepare` returned with the segmentations by previous stages among the inputs of cascades.

        `segment` and `compare` do this themselves; here, it is done once for both.
        """
        if not prepared.stages:
            return prepared
        labels = {
            name: self.stages[name].segment_cropped(case, mirroring=self.mirroring)
            for name, case in prepared.stages.items()
        }
        inputs = [
            case if (stage := model.configuration.previous_stage) is None else case.with_previous_stage(labels[stage])
            for model, case in zip(self.models, prepared.inputs, strict=True)
        ]
        return replace(prepared, inputs=tuple(inputs), stages={})

    def _slices(self, prepared: Prepared, *, by_fold: bool) -> Iterator[tuple[Where, tuple[Tensor, ...]]]:
        """Yield the position of each slice, or part of one, of the cropped case, and what each model says about it.

        This is its probabilities (K, Y, X), or with `by_fold` the logits (F, K, Y, X) of its folds.
        """
        placements = [case.placement for case in prepared.inputs]
        strips = strips_for(self.models, placements, mirroring=self.mirroring, by_fold=by_fold)
        streams = []
        for model, case in zip(self.models, prepared.inputs, strict=True):
            slices = model.slices_by_fold if by_fold else model.slices
            streams.append(slices(case.image, case.placement, mirroring=self.mirroring, strips=strips, body=case.body))
        return zip(places(placements[0], strips), zip(*streams, strict=True), strict=True)
