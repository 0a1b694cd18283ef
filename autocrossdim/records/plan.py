"""What was decided, and why: the typed, versioned content of plan.json."""

import math
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autocrossdim.records.labels import Labels
from autocrossdim.records.network import NetworkPlan
from autocrossdim.records.normalization import Normalization
from autocrossdim.system.errors import UserError, first_fault
from autocrossdim.system.files import read_json, write_text

PLAN_VERSION = 1

GIGABYTE = 1024**3
DEFAULT_MEMORY_GB = 8.0  # budget where no GPU is found

STEPS_PER_EPOCH = 50  # optimiser steps between two checkpoints: what is lost at most when a run is killed

Inflation = Literal["center", "average", "replicate", "acs"]

# A plan is read from files of others, too: what no scan and no network has would only end in want of memory.
MAX_AXIS, MAX_PATCH, MAX_BATCH = 2**15, 2**28, 2**12  # voxels an axis and a patch (1 GiB), patches

Millimetres = Annotated[float, Field(gt=0, lt=1e6)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,50}$")]  # becomes the name of a folder


class PlanOptions(BaseModel):
    """What the user may ask of a planner; `None` leaves the choice to it.

    Attributes:
        memory_gb: memory that training may take, in GiB.
        encoder: timm architecture of the encoder.
        threshold: anisotropy from which on slices are preferred to volumes.
        patch_size: voxels an axis, after transposition; two entries are the in-plane size.
        batch_size: patches a step.
        network: `default`, or `paper` for the networks as published.
        inflation: how 2D weights become 3D ones.
        slices: neighbouring slices a 2D network sees as channels.
        deep_supervision: the loss also looks at the decoder's coarser levels.
        precision: bits of the convolutions, 16 or 32; `auto` takes 16 where there is a GPU.
        trial: run a few real steps, for the time they take and, on a GPU, the memory.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    memory_gb: float | None = None
    encoder: str | None = None
    threshold: float = 3.0
    patch_size: tuple[int, ...] | None = None
    batch_size: int | None = None
    network: Literal["default", "paper"] = "default"
    inflation: Inflation = "center"
    slices: Literal[1, 3] = 1
    deep_supervision: bool = False
    precision: Literal["auto", "16", "32"] = "auto"
    trial: bool = True


class Memory(BaseModel):
    """Memory in bytes.

    Attributes:
        budget_bytes: what a training step may take.
        estimated_bytes: what it is computed to take.
        measured_bytes: what it took when it was run for real; None where there is no GPU to run it on.
        inference_bytes: what predicting one batch of tiles is computed to take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_bytes: int
    estimated_bytes: int
    measured_bytes: int | None = None
    inference_bytes: int


class Cost(BaseModel):
    """What a configuration costs.

    Attributes:
        multiply_adds_per_case: of predicting a case of the median shape once, without mirroring.
        seconds_per_epoch: of training on this machine, from a few real steps; None if they were not run.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    multiply_adds_per_case: int
    seconds_per_epoch: float | None = None


class Configuration(BaseModel):
    """One network and the data it sees. All axes are in the plan's order (transposed), coarsest first.

    Attributes:
        name: `omnia`, `dx`, `dx_lowres` or `ds`.
        dims: 2 (slices) or 3 (volumes).
        spacing: mm a voxel, `dims` entries; a 2D configuration leaves the slice axis as it is.
        median_shape: median shape (Z, Y, X) of the cases at that spacing, voxels.
        patch_size: voxels, `dims` entries.
        batch_size: patches a step.
        encoder: timm architecture.
        network: `default` or `paper`.
        kind: `unet`, or `ds` for 3D -> 2D -> 3D.
        strides: one entry of `dims` numbers an encoder level.
        kernel_sizes: one entry a resolution level, the full one first.
        inflation: how 2D weights become 3D ones.
        slices: neighbouring slices a 2D network sees as channels: 1 (the paper), or 3, which is what a pretrained
            RGB stem takes by nature.
        deep_supervision: in training, the loss also looks at the decoder's coarser levels.
        memory: bytes of a training step and of prediction.
        cost: arithmetic and time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    dims: Literal[2, 3]
    spacing: tuple[Millimetres, ...]
    median_shape: tuple[int, int, int]
    patch_size: tuple[Annotated[int, Field(gt=0, le=MAX_AXIS)], ...]
    batch_size: Annotated[int, Field(gt=0, le=MAX_BATCH)]
    encoder: str
    network: Literal["default", "paper"] = "default"
    kind: Literal["unet", "ds"] = "unet"
    strides: tuple[tuple[int, ...], ...]
    kernel_sizes: tuple[tuple[int, ...], ...]
    inflation: Inflation = "center"
    slices: Literal[1, 3] = 1
    deep_supervision: bool = False
    memory: Memory
    cost: Cost

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if {len(self.spacing), len(self.patch_size)} != {self.dims}:
            raise ValueError(f"spacing and patch_size need {self.dims} numbers, one an axis")
        if math.prod(self.patch_size) > MAX_PATCH:
            raise ValueError(f"a patch of more than {MAX_PATCH} voxels")
        return self

    def target_spacing(self, spacing: tuple[float, float, float]) -> tuple[float, float, float]:
        """Return the spacing (mm; z, y, x in the plan's order) that a case of `spacing` is resampled to."""
        z, y, x = (spacing[0], *self.spacing) if self.dims == 2 else self.spacing
        return z, y, x

    def trains_like(self, other: "Configuration") -> bool:
        """Whether two configurations make the same network of the same data, whatever they were said to cost."""
        aside = {"memory", "cost"}
        return self.model_dump(exclude=aside) == other.model_dump(exclude=aside)

    @property
    def patch_shape(self) -> tuple[int, int, int]:
        """The patch as (Z, Y, X); one slice for a 2D configuration."""
        z, y, x = (1, *self.patch_size) if self.dims == 2 else self.patch_size
        return z, y, x


class Decision(BaseModel):
    """Which configuration is trained by default, and why."""

    model_config = ConfigDict(frozen=True)

    anisotropy: float
    threshold: float
    configuration: str
    alternatives: tuple[str, ...]
    reasons: tuple[str, ...]


class Plan(BaseModel):
    """Everything training and prediction need to know about a dataset.

    Attributes:
        transpose: original axis (z, y, x) of each axis in the plan's order.
        precision_bits: of the convolutions the memory was computed for.
        notes: what else follows from the data, a sentence each.
        overrides: options the user chose instead of the planner, by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = PLAN_VERSION
    dataset: str
    dims: Literal[2, 3]
    channel_names: tuple[str, ...]
    labels: Labels
    file_ending: Annotated[str, Field(pattern=r"^(\.[A-Za-z]{1,8}){1,2}$")]  # becomes the end of a result's path
    transpose: tuple[int, int, int]
    normalization: tuple[Normalization, ...]
    decision: Decision
    configurations: dict[str, Configuration]
    precision_bits: Literal[16, 32] = 32
    notes: tuple[str, ...] = ()
    overrides: dict[str, str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if sorted(self.transpose) != [0, 1, 2]:
            raise ValueError("transpose must hold each of 0, 1 and 2 once")
        if not self.channel_names or len(self.normalization) != len(self.channel_names):
            raise ValueError("one normalization is needed for each of channel_names")
        for name, configuration in self.configurations.items():
            if configuration.name != name:
                raise ValueError(f"configuration '{name}' calls itself '{configuration.name}'")
            try:
                self.network_plan(configuration)
            except ValidationError as error:
                raise ValueError(f"{name}: {first_fault(error)}") from error
        return self

    def configuration(self, name: str | None = None) -> Configuration:
        """Return a configuration by name, or the one that was decided on.

        Raises:
            UserError: the plan has no such configuration.
        """
        name = name or self.decision.configuration
        if name not in self.configurations:
            raise UserError(
                f"The plan of {self.dataset} has no configuration '{name}'; it has "
                f"{', '.join(sorted(self.configurations))}."
            )
        return self.configurations[name]

    def network_plan(self, configuration: Configuration) -> NetworkPlan:
        """Return what `build_network` needs for a configuration."""
        return NetworkPlan(
            kind=configuration.kind,
            preset=configuration.network,
            dims=configuration.dims,
            encoder=configuration.encoder,
            in_channels=len(self.channel_names) * configuration.slices,
            num_outputs=self.labels.num_outputs,
            strides=[list(stride) for stride in configuration.strides],
            kernel_sizes=[list(kernel) for kernel in configuration.kernel_sizes],
            inflation=configuration.inflation,
            deep_supervision=configuration.deep_supervision,
            depth=configuration.patch_size[0] if configuration.kind == "ds" else None,
        )

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """Read plan.json.

        Raises:
            UserError: the file is missing, damaged, or of another version.
        """
        content = read_json(path)
        version = content.get("version") if isinstance(content, dict) else None
        if version != PLAN_VERSION:
            raise UserError(
                f"{path}: a plan of version {version}, but this program reads version {PLAN_VERSION}. "
                "Plan again with `autocrossdim plan_and_preprocess --overwrite`."
            )
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            raise UserError(f"{path}: not a valid plan ({first_fault(error)}). Plan again.") from error

    def write(self, path: Path) -> None:
        """Write plan.json."""
        write_text(path, self.model_dump_json(indent=2) + "\n")
