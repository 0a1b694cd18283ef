"""What was decided, and why: the typed, versioned content of plan.json."""

import math
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from autocrossdim.records.concise import Concise
from autocrossdim.records.labels import Labels
from autocrossdim.records.network import NO_ENCODER, Kind, NetworkChoices, NetworkPlan
from autocrossdim.records.normalization import Normalization
from autocrossdim.system.errors import UserError, first_fault
from autocrossdim.system.files import read_record, write_text

PLAN_VERSION = 2

GIGABYTE = 1024**3
DEFAULT_MEMORY_GB = 8.0  # budget where no GPU is found

DISTILLED = "_distilled"  # end of the name of a student, which has the network of the configuration named before it

EPOCHS = 100  # of a training by default
STEPS_PER_EPOCH = 50  # optimiser steps between two checkpoints, the most that is lost when a run is killed

NNUNET_NAMES = {"2d": "omnia", "3d_fullres": "dx", "3d_lowres": "dx_lowres", "3d_cascade_fullres": "dx_cascade"}

# Plans may come from other people. Beyond these bounds, memory would run out.
MAX_AXIS, MAX_PATCH, MAX_BATCH = 2**15, 2**28, 2**12  # voxels per axis, voxels per patch (1 GiB), patches per batch

Millimetres = Annotated[float, Field(gt=0, lt=1e6)]
PatchSide = Annotated[int, Field(gt=0, le=MAX_AXIS)]
Augmentation = Literal["none", "standard", "strong"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,50}$")]  # becomes the name of a folder


class Memory(BaseModel):
    """Memory in bytes.

    Attributes:
        budget_bytes: Budget of a training step.
        estimated_bytes: Computed memory of a training step.
        measured_bytes: Measured peak memory of a training step; None without a GPU.
        inference_bytes: Computed memory of predicting one batch of tiles.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_bytes: int
    estimated_bytes: int
    measured_bytes: int | None = None
    inference_bytes: int


class Cost(BaseModel):
    """What a configuration costs.

    Attributes:
        multiply_adds_per_case: Multiply-adds of predicting a case of the median shape once, without mirroring.
        seconds_per_epoch: Seconds per training epoch on this machine, from a few real steps; None if they were not run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    multiply_adds_per_case: int
    seconds_per_epoch: float | None = None


class Configuration(NetworkChoices):
    """One network and the data it sees. All axes are in the plan's order (transposed), coarsest first.

    Attributes:
        name: `omnia`, `dx`, `dx_lowres`, `dx_cascade`, `ds` or `unet`.
        dims: 2 (slices) or 3 (volumes).
        spacing: Voxel spacing in mm, `dims` entries; a 2D configuration does not resample the slice axis.
        median_shape: Median shape (Z, Y, X) of the cases at that spacing, in voxels.
        patch_size: Patch size in voxels, `dims` entries.
        batch_size: Patches per training step.
        kind: `unet` for Omnia-Net and DX-Net, `ds` for DS-Net (3D -> 2D -> 3D), `plain` for a U-Net without pretrained
            weights.
        previous_stage: Configuration whose segmentation is an additional input, one mask per label; None if there is
            none. nnU-Net's word.
        trainer: Name of the installed trainer that trains it (entry point group `autocrossdim.trainers`).
        learning_rate: Peak learning rate, unless the training settings give another.
        augmentation: How much training patches are changed, unless the training settings say otherwise.
        mirror_axes: Axes of the patch that are mirrored in training and at test time; None mirrors every axis.
        image_statistics: Share of each image's own statistics in batch norms, in validation and prediction.
        strides: Stride per axis, one entry per encoder level.
        kernel_sizes: Kernel extent per axis, one entry per resolution level, full resolution first.
        memory: Memory of a training step and of prediction.
        cost: Multiply-adds of prediction, and training time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    dims: Literal[2, 3]
    spacing: tuple[Millimetres, ...]
    median_shape: tuple[int, int, int]
    patch_size: tuple[PatchSide, ...]
    batch_size: Annotated[int, Field(gt=0, le=MAX_BATCH)]
    kind: Kind = "unet"
    previous_stage: Name | None = None
    trainer: str = "default"
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    augmentation: Augmentation = "standard"
    mirror_axes: tuple[Literal[0, 1, 2], ...] | None = None
    image_statistics: Annotated[float, Field(ge=0, le=1)] = 0.0
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    memory: Memory
    cost: Cost

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if {len(self.spacing), len(self.patch_size)} != {self.dims}:
            raise ValueError(f"spacing and patch_size need {self.dims} numbers, one per axis")
        if math.prod(self.patch_size) > MAX_PATCH:
            raise ValueError(f"a patch of more than {MAX_PATCH} voxels")
        if self.previous_stage is not None and (self.kind != "unet" or self.slices != 1):
            raise ValueError("previous_stage needs kind 'unet' and slices 1")
        return self

    @model_serializer(mode="wrap")
    def _as_before(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what earlier plans lack where it has its default, so that their digests remain valid."""
        content: dict[str, Any] = dump(self)
        for name in ("previous_stage", "augmentation", "image_statistics"):
            if getattr(self, name) == type(self).model_fields[name].default:
                content.pop(name, None)
        return content

    @property
    def is_distilled(self) -> bool:
        """Whether this is the student of an ensemble (`autocrossdim distil`)."""
        return self.name.endswith(DISTILLED)

    def target_spacing(self, spacing: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return the spacing (mm; z, y, x in the plan's order) that a case of `spacing` is resampled to."""
        z, y, x = (spacing[0], *self.spacing) if self.dims == 2 else self.spacing
        return z, y, x

    def differing_fields(self, other: "Configuration") -> list[str]:
        """Return the names of the fields in which two configurations differ, without those that do not affect training.

        These are memory, cost, and the median shape, which describes the cases.
        """
        names = type(self).model_fields.keys() - {"memory", "cost", "median_shape"}
        return sorted(name for name in names if getattr(self, name) != getattr(other, name))

    @property
    def default_weights(self) -> str:
        """Starting weights unless the user names others: a plain U-Net has no pretrained encoder."""
        return "random" if self.encoder == NO_ENCODER else "imagenet"

    @property
    def mirrored(self) -> tuple[int, ...]:
        """Axes of the patch that are mirrored."""
        return tuple(range(self.dims)) if self.mirror_axes is None else self.mirror_axes

    @property
    def mirrored_in_prediction(self) -> tuple[int, ...]:
        """Axes that are mirrored at test time: none for a student, which is meant to be fast."""
        return () if self.is_distilled else self.mirrored

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """The patch as (Z, Y, X); one slice for a 2D configuration."""
        z, y, x = (1, *self.patch_size) if self.dims == 2 else self.patch_size
        return z, y, x


class Decision(BaseModel):
    """Which configuration is trained by default, and why.

    Attributes:
        anisotropy: Largest divided by smallest median voxel spacing.
        threshold: Anisotropy from which a 2D network is chosen.
        configuration: Configuration that was decided on.
        alternatives: The other planned configurations.
        reasons: Reasons for the decision, one sentence each.
    """

    model_config = ConfigDict(frozen=True)

    anisotropy: float
    threshold: float
    configuration: str
    alternatives: tuple[str, ...]
    reasons: tuple[str, ...]


class Plan(Concise, BaseModel):
    """Everything training and prediction need to know about a dataset.

    Attributes:
        dataset: Name of the dataset.
        dims: 2 for images, 3 for volumes.
        decision: Which configuration is trained by default, and why.
        configurations: All planned configurations, by name.
        normalization: How each channel is normalised.
        orientation: Orientation code that images are brought to first (`autocrossdim.data.orientation`); None leaves
            them as they are.
        transpose: Axis (z, y, x) of that orientation which is each axis of the plan, the coarsest first.
        precision_bits: Bits of the convolutions for which the memory was computed.
        notes: What else follows from the data, one sentence each.
        overrides: Options that the user chose instead of the planner, by name.
        made_from: SHA-256 of measurements, options, version and device that it follows from; None if not recorded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = PLAN_VERSION
    dataset: str
    dims: Literal[2, 3]
    channel_names: tuple[str, ...]
    labels: Labels
    file_ending: Annotated[str, Field(pattern=r"^(\.[A-Za-z]{1,8}){1,2}$")]  # becomes the end of a result's path
    orientation: Annotated[str, Field(pattern=r"^[RLAPIS]{3}$")] | None = None
    transpose: tuple[int, int, int]
    normalization: tuple[Normalization, ...]
    decision: Decision
    configurations: dict[str, Configuration]
    precision_bits: Literal[16, 32] = 32
    notes: tuple[str, ...] = ()
    overrides: dict[str, str] = {}
    made_from: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if sorted(self.transpose) != [0, 1, 2]:
            raise ValueError("transpose must hold each of 0, 1 and 2 once")
        if not self.channel_names or len(self.normalization) != len(self.channel_names):
            raise ValueError("one normalization is needed for each of channel_names")
        for name, configuration in self.configurations.items():
            if configuration.name != name:
                raise ValueError(f"configuration '{name}' calls itself '{configuration.name}'")
            stage = configuration.previous_stage
            if stage is not None and (stage not in self.configurations or self._stage_of(stage) is not None):
                raise ValueError(f"previous_stage of '{name}': '{stage}' must be another configuration without one")
            try:
                self.network_plan(configuration)
            except ValidationError as error:
                raise ValueError(f"{name}: {first_fault(error)}") from error
        return self

    def __str__(self) -> str:
        name = self.decision.configuration
        others = f"; also planned: {', '.join(self.decision.alternatives)}" if self.decision.alternatives else ""
        chosen = self._find(name)
        if chosen is None:
            return f"{self.dataset}, {name}{others}"
        patch = " × ".join(map(str, chosen.patch_size))
        return f"{self.dataset}, {name}: {chosen.dims}D, patch size {patch}, batch size {chosen.batch_size}{others}"

    def configuration(self, name: str | None = None) -> Configuration:
        """Return a configuration by name, or the one that was decided on.

        A configuration and its student, such as `omnia_distilled`, differ in their names only.

        Raises:
            UserError: The plan has no such configuration.
        """
        name = name or self.decision.configuration
        if (found := self._find(name)) is None:
            ours = f" nnU-Net's '{name}' is called '{NNUNET_NAMES[name]}'." if name in NNUNET_NAMES else ""
            raise UserError(
                f"The plan of {self.dataset} has no configuration '{name}'; it has "
                f"{', '.join(sorted(self.configurations))}.{ours}"
            )
        return found

    def _find(self, name: str) -> Configuration | None:
        """Return a configuration or the student of one; None if there is none."""
        if name in self.configurations or not name.endswith(DISTILLED):
            return self.configurations.get(name)
        taught = self.configurations.get(name.removesuffix(DISTILLED))
        return None if taught is None else taught.model_copy(update={"name": name})

    def with_stages(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the configurations and the previous stages they need, each once, stages before what needs them.

        Raises:
            UserError: The plan has no such configuration.
        """
        pairs = ((self.configuration(name).previous_stage, name) for name in names)
        return tuple(dict.fromkeys(name for pair in pairs for name in pair if name is not None))

    @property
    def trained_by_run(self) -> tuple[str, ...]:
        """Names of the configurations that `run` trains, in this order.

        They are the plan's decision and, if that is `dx` and its patches cover little of a case, the cascade.
        """
        chosen = self.configuration()
        cascades = [
            name
            for name, each in self.configurations.items()
            if each.previous_stage is not None and (each.kind, each.spacing) == (chosen.kind, chosen.spacing)
        ]
        return self.with_stages([chosen.name, *cascades])

    def _stage_of(self, name: str) -> str | None:
        return self.configurations[name].previous_stage if name in self.configurations else None

    def network_plan(self, configuration: Configuration) -> NetworkPlan:
        """Return what `build_network` needs for a configuration."""
        return NetworkPlan.of(
            {name: getattr(configuration, name) for name in NetworkChoices.model_fields},
            kind=configuration.kind,
            channels=len(self.channel_names),
            masks=0 if configuration.previous_stage is None else len(self.labels.foreground),
            num_outputs=self.labels.num_outputs,
            patch=configuration.patch_size,
            strides=configuration.strides,
            kernel_sizes=configuration.kernel_sizes,
        )

    def differences(self, other: "Plan", configurations: Collection[str]) -> list[str]:
        """Return what would make networks trained under the two plans unfit to be used together, one item each.

        Args:
            other: The other plan.
            configurations: Names of the configurations that both plans are used for; their previous stages count, too.
        """
        named = {
            "labels": (self.labels.model_dump_json(), other.labels.model_dump_json()),  # the order of regions counts
            "channels": (self.channel_names, other.channel_names),
            "normalisation": (
                [n.effective() for n in self.normalization],
                [n.effective() for n in other.normalization],
            ),
            "orientation": (self.orientation, other.orientation),
            "axis order": (self.transpose, other.transpose),
        }
        found = [name for name, (this, that) in named.items() if this != that]
        stages = [stage for name in configurations if (stage := self._stage_of(name)) is not None]
        for name in dict.fromkeys([*configurations, *stages]):
            this, that = self._find(name), other._find(name)
            if this is None or that is None:
                found.append(f"configuration {name} (in one plan only)")
            elif different := this.differing_fields(that):
                found.append(f"configuration {name} ({', '.join(different)})")
        return found

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Read plan.json.

        Raises:
            UserError: The file is missing, damaged, or of another version.
        """
        remedy = "Plan again with `autocrossdim plan_and_preprocess --overwrite`."
        return read_record(cls, path, fault="not a valid plan", remedy=remedy, version=PLAN_VERSION)

    def write(self, path: Path) -> None:
        """Write plan.json."""
        write_text(path, self.model_dump_json(indent=2) + "\n")
