"""What `find_best` chose, why, and what it rests on: the typed, versioned content of best.json."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from autocrossdim.records.calibration import Calibration, CaseScore
from autocrossdim.records.concise import Concise
from autocrossdim.records.likeness import Likeness
from autocrossdim.records.plan import Plan
from autocrossdim.records.summary import Unit
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.system.files import read_record, write_text

BEST_VERSION = 1


class KeepLargest(BaseModel):
    """Of the voxels with certain values, keep the largest component only.

    Attributes:
        name: Name of the label or region, or `foreground` for all of them together.
        values: Label values that form one component together.
        replaced_by: Value that the voxels of all other components get: background or, for a region, the value of the
            smallest region around it (a stray piece of a tumour's core becomes tumour, not background).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    values: tuple[int, ...]
    replaced_by: int = 0


class Contender(BaseModel):
    """One candidate of the choice: a configuration, or two averaged.

    Attributes:
        name: Name that is shown, such as `omnia + dx`.
        configurations: Configurations that are averaged.
        multiply_adds: Multiply-adds of predicting a case of the median shape with one fold.
        dice: Mean foreground Dice over the held-out cases.
        dice_interval: 95 % interval of the Dice over cases or groups; None with fewer than two groups.
        hd95: Mean foreground HD95.
        unit: Unit of HD95.
        steps_per_fold: Optimiser steps of training, summed over the members of an ensemble and the stages of a cascade;
            None if unknown.
        minutes_per_fold: Training time in minutes, summed likewise; None if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    configurations: tuple[str, ...]
    multiply_adds: int
    dice: float
    dice_interval: tuple[float, float] | None = None
    hd95: float | None = None
    unit: Unit = "mm"
    steps_per_fold: float | None = None
    minutes_per_fold: float | None = None


class Best(Concise, BaseModel):
    """The choice that `predict` follows if no configuration is named.

    Attributes:
        dataset: Name of the dataset.
        configurations: Configurations to average.
        folds: Folds of each configuration to average.
        postprocessing: Steps of post-processing, in order.
        dice_postprocessed: Mean foreground Dice of the held-out cases after post-processing.
        calibration: Temperature of the probabilities, and their calibration error.
        case_score: Map from the confidence of a case to its expected Dice.
        likeness: What the training data are like, to compare new images with; None with too few held-out cases.
        contenders: Everything that was compared.
        scope: What the metrics were computed on, as `Summary.scope`; None if all slices count.
        reasons: Reasons for the choice, one sentence each.
        budgets: How the training budgets or settings of the candidates differ, one sentence each.
        plan_digest: Digest of what the plan says about these configurations.
        checkpoints: SHA-256 of each checkpoint that was compared, by `CONFIGURATION/fold_K`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = BEST_VERSION
    dataset: str
    configurations: Annotated[tuple[str, ...], Field(min_length=1)]
    folds: Annotated[tuple[int, ...], Field(min_length=1)]
    postprocessing: tuple[KeepLargest, ...] = ()
    dice_postprocessed: float
    calibration: Calibration = Calibration()
    case_score: CaseScore = CaseScore()
    likeness: Likeness | None = None
    contenders: tuple[Contender, ...]
    scope: str | None = None
    reasons: tuple[str, ...]
    budgets: tuple[str, ...] = ()
    plan_digest: str
    checkpoints: dict[str, str]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.likeness is not None and self.likeness.configuration not in self.configurations:
            raise ValueError("likeness is about another configuration")
        return self

    @property
    def result(self) -> str:
        """Mean Dice of the held-out cases, in words."""
        after = " after post-processing" if self.postprocessing else ""
        return f"mean Dice {self.dice_postprocessed:.3f} on held-out cases{after}"

    def __str__(self) -> str:
        return f"{self.dataset}, {self.name}: {self.result}"

    @property
    def name(self) -> str:
        """The chosen candidate's name."""
        return contender_name(self.configurations)

    @classmethod
    def read(cls, path: Path) -> "Best":
        """Read best.json.

        Raises:
            UserError: The file is missing, damaged, or of another version.
        """
        return read_record(cls, path, remedy="Run `autocrossdim find_best` again, or delete it.", version=BEST_VERSION)

    def write(self, path: Path) -> None:
        """Write best.json."""
        write_text(path, self.model_dump_json(indent=2) + "\n")

    def outdated(self, workspace: Workspace, folds: Sequence[int | str] = ()) -> str | None:
        """Return what changed in a workspace since the choice was made, such as `plan.json was planned anew`, or None.

        Args:
            workspace: Workspace that contains best.json.
            folds: Folds to look at; the folds of the ensemble if empty.
        """
        if workspace.plan.exists() and plan_digest(Plan.read(workspace.plan), self.configurations) != self.plan_digest:
            return f"{workspace.plan.name} was planned anew"
        # The checkpoints of previous stages are among them.
        for configuration in dict.fromkeys(key.partition("/")[0] for key in self.checkpoints):
            for fold in folds or self.folds:
                known = self.checkpoints.get(f"{configuration}/fold_{fold}")
                latest = workspace.fold(configuration, fold).latest
                if known is not None and latest.exists() and checkpoint_digest(latest) != known:
                    return f"{latest.relative_to(workspace.root)} was trained further or again"
        return None


def contender_name(configurations: Sequence[str]) -> str:
    """Return the name of a configuration, or of several averaged: `omnia + dx`."""
    return " + ".join(configurations)


def folder_name(configurations: Sequence[str]) -> str:
    """Return the name of the folder in `models/` that holds a configuration, or several averaged."""
    return configurations[0] if len(configurations) == 1 else "_".join(["ensemble", *configurations])


def checkpoint_digest(checkpoint: Path) -> str:
    """Return the SHA-256 of a checkpoint."""
    with checkpoint.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_digests(
    workspace: Workspace, configurations: Sequence[str], folds: Sequence[int | str]
) -> dict[str, str]:
    """Return the digest of every fold, by `CONFIGURATION/fold_K`."""
    folders: dict[str, FoldFolder] = {
        f"{name}/fold_{fold}": workspace.fold(name, fold) for name in configurations for fold in folds
    }
    return {key: checkpoint_digest(folder.latest) for key, folder in folders.items()}


def plan_digest(plan: Plan, configurations: Sequence[str]) -> str:
    """Return a digest of what matters to trained networks: labels, preprocessing and the configurations named."""
    shared = plan.model_dump(
        mode="json", include={"channel_names", "labels", "orientation", "transpose", "normalization"}
    )
    if plan.labels.has_regions:  # their order is that of the outputs, and keys are sorted below
        shared["regions"] = list(plan.labels.names)
    networks = {
        name: plan.configurations[name].model_dump(mode="json", exclude={"memory", "cost"})
        for name in sorted(plan.with_stages(name for name in configurations if name in plan.configurations))
    }
    return hashlib.sha256(json.dumps([shared, networks], sort_keys=True).encode()).hexdigest()
