"""Training settings: every hyper-parameter of a run, with its bounds and its meaning."""

import difflib
import reprlib
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autocrossdim.records.plan import EPOCHS, STEPS_PER_EPOCH, Augmentation
from autocrossdim.system.errors import UserError, first_fault
from autocrossdim.system.text import printable

MAX_EPOCHS, MAX_STEPS, MAX_SECONDS = 10**6, 10**6, 10**9.0
GRADIENT_CLIP = 12.0  # nnU-Net
LONGEST_VALUE = 60  # characters of a value that are repeated in a message
FORMER = frozenset({"augment", "affine", "elastic"})  # settings of earlier versions, replaced by `augmentation`


class Settings(BaseModel):
    """Settings of a training run besides the plan; stored in every checkpoint.

    docs/explanation/training.md gives the reasons for the defaults. Upper bounds are far above every sensible value:
    they turn typing errors into messages.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(
        EPOCHS,
        ge=1,
        le=MAX_EPOCHS,
        description="Number of epochs, at the end of which the learning rate has decayed to 0.",
    )
    steps_per_epoch: int = Field(
        STEPS_PER_EPOCH, ge=1, le=MAX_STEPS, description="Optimiser steps per epoch; a checkpoint follows each epoch."
    )
    max_seconds: float | None = Field(
        None,
        gt=0,
        le=MAX_SECONDS,
        description="Training time in seconds after which the learning rate has decayed to 0.",
    )
    seed: int = Field(
        12345, ge=0, lt=2**32, description="Seed of the sampling, the augmentation and the initial weights."
    )
    learning_rate: float | None = Field(
        None, gt=0, le=10, description="Peak learning rate of NAdam (default: that of the configuration)."
    )
    encoder_learning_rate: float = Field(
        1.0, ge=0, le=100, description="Factor applied to the learning rate of the encoder."
    )
    frozen_epochs: int = Field(
        0, ge=0, le=MAX_EPOCHS, description="Epochs at the beginning during which the encoder is frozen."
    )
    warmup: float = Field(0.02, ge=0, lt=1, description="Fraction of the run over which the learning rate rises.")
    gradient_clip: float = Field(GRADIENT_CLIP, gt=0, le=1e6, description="Maximum norm of the gradient (nnU-Net: 12).")
    slices_first: bool = Field(
        True, description="First train the 2D counterpart of DX-Net on slices of the same cases, and start from it."
    )
    accumulate: int = Field(1, ge=1, le=1000, description="Batches per optimiser step; their gradients are averaged.")
    lookahead: int = Field(
        0, ge=0, le=MAX_STEPS, description="Steps between two updates of the slow weights of Lookahead; 0 turns it off."
    )
    averaging: float = Field(
        0.05,
        ge=0,
        le=0.25,
        description="Relative width of the running average of the weights; 0 uses the last weights.",
    )
    patience: int = Field(
        20,
        ge=0,
        le=MAX_EPOCHS,
        description="Epochs without a better validation score after which the schedule is shortened; 0 turns it off.",
    )
    cooldown: int = Field(
        10, ge=1, le=MAX_EPOCHS, description="Epochs of a shortened schedule, over which the learning rate decays to 0."
    )
    dice_weight: float = Field(1.0, ge=0, le=1000, description="Weight of the Dice loss (paper: equal weights).")
    cross_entropy_weight: float = Field(1.0, ge=0, le=1000, description="Weight of the cross-entropy loss.")
    unlabelled: float = Field(
        0.0, ge=0, le=100, description="Weight of the loss on unlabelled scans (imagesUn); 0 leaves them out."
    )
    foreground_share: float = Field(
        0.33, ge=0, le=1, description="Fraction of the patches of a batch centred on a labelled voxel (nnU-Net: 0.33)."
    )
    validation_batches: int = Field(
        4, ge=1, le=1000, description="Batches of validation patches that are scored after every epoch."
    )
    augmentation: Augmentation | None = Field(
        None,
        description="How much training patches are changed: not at all, as often and as far as in nnU-Net, or more "
        "(default: that of the configuration).",
    )
    channel_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Probability that a channel of a patch is dropped, so that cases without it can be segmented.",
    )
    stage_empty: float = Field(
        0.05, ge=0, le=1, description="Cascade: probability that a patch is shown without the previous stage's masks."
    )
    stage_morphology: float = Field(
        0.2,
        ge=0,
        le=1,
        description="Cascade: probability that a mask is dilated, eroded, opened or closed (nnU-Net: 0.2).",
    )
    stage_component: float = Field(
        0.1, ge=0, le=1, description="Cascade: probability that a mask loses a connected component (nnU-Net: 0.1)."
    )
    workers: int | None = Field(
        None, ge=0, le=256, description="Processes that load and augment patches (default: depends on the CPU cores)."
    )
    augment_on_gpu: bool = Field(
        False,
        description="Augment training patches on the GPU instead of in the worker processes (for few CPU cores).",
    )
    compile: bool = Field(False, description="Compile the network with torch.compile if possible.")
    monitor: Literal["none", "tensorboard", "mlflow"] = Field(
        "none", description="Tool that also logs the training history."
    )

    @model_validator(mode="after")
    def _has_a_loss(self) -> Self:
        if self.dice_weight == self.cross_entropy_weight == 0:
            raise ValueError("dice_weight and cross_entropy_weight cannot both be 0")
        return self

    @model_validator(mode="after")
    def _has_a_teacher(self) -> Self:
        if self.unlabelled and not self.averaging:
            raise ValueError("unlabelled scans need the running average of the weights, which averaging=0 turns off")
        return self


def read_settings(given: Mapping[str, Any]) -> Settings:
    """Return the settings, with defaults for those that were not given.

    Args:
        given: Values by the names of the settings.

    Raises:
        UserError: A setting does not exist, or its value is out of bounds.
    """
    for name in given:
        if name not in Settings.model_fields:
            raise UserError(_unknown(name))
    try:
        return Settings.model_validate(dict(given))
    except ValidationError as error:
        fault = error.errors()[0]
        if not fault["loc"]:
            raise UserError(f"Settings: {fault['msg'].removeprefix('Value error, ')}.") from error
        message = first_fault(error).partition(": ")[2]
        raise UserError(f"Setting {fault['loc'][0]}={_shown(fault['input'])}: {message}.") from error


def _shown(value: object) -> str:
    """Return the beginning of a value for a message."""
    try:
        return printable(value if isinstance(value, str) else reprlib.repr(value))[:LONGEST_VALUE]
    except ValueError:  # Python does not write out integers of more than 4300 digits
        return "(a huge number)"


def _unknown(name: str) -> str:
    if name in FORMER:
        return (
            f"There is no setting '{name}' any more. Use augmentation=none, standard or strong; see "
            "docs/explanation/training.md."
        )
    shown = _shown(name)
    initials = {"".join(word[0] for word in field.split("_")): field for field in Settings.model_fields if "_" in field}
    nearest = [initials[shown]] if shown in initials else difflib.get_close_matches(shown, Settings.model_fields, n=1)
    suggestion = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"Unknown setting '{shown}'.{suggestion} Settings: {', '.join(sorted(Settings.model_fields))}."
