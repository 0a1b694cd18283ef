"""Every hyper-parameter of training, in one place."""

from pydantic import BaseModel, ConfigDict, Field

from autocrossdim.plan import STEPS_PER_EPOCH


class Settings(BaseModel):
    """What a run is made of besides the plan; stored with every checkpoint.

    Attributes:
        epochs: the learning rate has decayed when they end (paper: below 100 in most experiments).
        steps_per_epoch: optimiser steps an epoch; also how much is lost when a run is killed.
        max_seconds: training time after which the decay has ended, whichever comes first.
        seed: of sampling, augmentation and initial weights.
        learning_rate: NAdam's at its highest (the authors' repository: 1e-3).
        encoder_learning_rate: factor on the learning rate for the encoder.
        frozen_epochs: epochs at the beginning in which the encoder does not learn.
        freeze_statistics: keep the encoder's batch-norm statistics as they were loaded.
        warmup: share of the run during which the learning rate rises.
        gradient_clip: largest norm of the gradient (nnU-Net: 12).
        dice_weight, cross_entropy_weight: of the two terms of the loss (paper: equal).
        foreground_share: of the patches of a batch, centred on a voxel of a class (nnU-Net: 33 %).
        validation_batches: fixed patches for the pseudo-Dice after every epoch.
        augment: whether training patches are augmented.
        workers: processes that load and augment; None chooses by the cores there are.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(100, ge=1)
    steps_per_epoch: int = Field(STEPS_PER_EPOCH, ge=1)
    max_seconds: float | None = Field(None, gt=0)
    seed: int = Field(12345, ge=0)
    learning_rate: float = Field(1e-3, gt=0)
    encoder_learning_rate: float = Field(1.0, ge=0)
    frozen_epochs: int = Field(0, ge=0)
    freeze_statistics: bool = False
    warmup: float = Field(0.02, ge=0, lt=1)
    gradient_clip: float = Field(12.0, gt=0)
    dice_weight: float = Field(1.0, ge=0)
    cross_entropy_weight: float = Field(1.0, ge=0)
    foreground_share: float = Field(0.33, ge=0, le=1)
    validation_batches: int = Field(4, ge=1)
    augment: bool = True
    workers: int | None = Field(None, ge=0)
