"""The file a fold is kept in: tensors and JSON, nothing that could execute when it is opened."""

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import Tensor

from autocrossdim.errors import UserError
from autocrossdim.files import written_whole
from autocrossdim.plan import Plan

CHECKPOINT_VERSION = 1


@dataclass
class Checkpoint:
    """One fold of one configuration at the end of an epoch.

    Attributes:
        plan: the dataset's plan, so that a checkpoint can be used by itself.
        configuration: name in the plan.
        fold: number, or "all".
        split: names of its training (`train`) and validation cases (`val`).
        network: the network's state.
        settings: the trainer's hyper-parameters, JSON-able.
        provenance: where the starting weights came from, JSON-able.
        progress: epoch, step, seconds, best score, and whether training is complete.
        optimizer: the optimiser's state.
    """

    plan: Plan
    configuration: str
    fold: int | str
    split: dict[str, list[str]]
    network: dict[str, Tensor]
    settings: dict[str, Any]
    provenance: dict[str, Any]
    progress: dict[str, Any]
    optimizer: dict[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether training went to its end."""
        return bool(self.progress["complete"])

    def write(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        content = {
            "version": CHECKPOINT_VERSION,
            "plan": self.plan.model_dump_json(),
            "configuration": self.configuration,
            "fold": self.fold,
            "split": self.split,
            "network": self.network,
            "settings": self.settings,
            "provenance": self.provenance,
            "progress": self.progress,
            "optimizer": self.optimizer,
        }
        with written_whole(path) as temporary:
            torch.save(content, temporary)

    @classmethod
    def read(cls, path: Path, device: torch.device | str = "cpu") -> "Checkpoint":
        """Read a checkpoint.

        Raises:
            UserError: the file is missing, damaged, or of another version.
        """
        try:
            content = torch.load(path, map_location=device, weights_only=True)
        except FileNotFoundError:
            raise UserError(f"{path}: no such checkpoint.") from None
        except (RuntimeError, EOFError, pickle.UnpicklingError, OSError, ValueError) as error:
            raise UserError(f"{path}: damaged or not a checkpoint. Train this fold again with --restart.") from error
        if not isinstance(content, dict) or content.pop("version", None) != CHECKPOINT_VERSION:
            raise UserError(f"{path}: a checkpoint of another version. Train this fold again with --restart.")
        try:
            content["plan"] = Plan.model_validate_json(content["plan"])
            return cls(**content)
        except (ValidationError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: a checkpoint of an older version. Train this fold again with --restart."
            ) from error
