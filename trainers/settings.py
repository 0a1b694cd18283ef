"""Every hyper-parameter of training, in one place."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from autocrossdim.records.plan import STEPS_PER_EPOCH
from trainers.augment import P_AFFINE


class Settings(BaseModel):
    """What a run is made of besides the plan; stored with every checkpoint. docs/training.md gives the reasons.

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
        slices_first: DX-Net starts from its 2D twin, trained first on slices of the same cases (trainers/slices.py).
        accumulate: batches a step; gradients are averaged over them.
        lookahead: steps between two synchronisations of Lookahead's slow weights; 0 leaves it out.
        averaging: relative width of the average of the weights that is evaluated; 0 evaluates the last weights.
        patience: epochs without a better validation score after which the rest of the schedule is shortened; 0 never.
        cooldown: epochs the shortened rest takes, so that the rate still decays to 0.
        dice_weight, cross_entropy_weight: of the two terms of the loss (paper: equal).
        foreground_share: of the patches of a batch, centred on a voxel of a class (nnU-Net: 33 %).
        validation_batches: fixed patches for the pseudo-Dice after every epoch.
        augment: whether training patches are augmented.
        affine: probability that an augmented patch is turned, and that it is scaled (nnU-Net: 0.2 each).
        elastic: probability that it is also bent (nnU-Net: 0).
        workers: processes that load and augment; None chooses by the cores there are.
        compile: run the network through torch.compile; where that fails, a line says so and it runs without.
        monitor: also send the history to TensorBoard (files beside it) or MLflow.
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
    slices_first: bool = True
    accumulate: int = Field(1, ge=1)
    lookahead: int = Field(0, ge=0)
    averaging: float = Field(0.05, ge=0, le=0.25)
    patience: int = Field(20, ge=0)
    cooldown: int = Field(10, ge=1)
    dice_weight: float = Field(1.0, ge=0)
    cross_entropy_weight: float = Field(1.0, ge=0)
    foreground_share: float = Field(0.33, ge=0, le=1)
    validation_batches: int = Field(4, ge=1)
    augment: bool = True
    affine: float = Field(P_AFFINE, ge=0, le=1)
    elastic: float = Field(0.0, ge=0, le=1)
    workers: int | None = Field(None, ge=0)
    compile: bool = False
    monitor: Literal["none", "tensorboard", "mlflow"] = "none"
