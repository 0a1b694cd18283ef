"""The file a fold is kept in: tensors and JSON, nothing that could execute when it is opened."""

import zipfile
from dataclasses import field
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from autocrossdim.records.plan import Plan
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import written_whole

CHECKPOINT_VERSION = 2


@dataclass(config=ConfigDict(arbitrary_types_allowed=True))
class Checkpoint:
    """One fold of one configuration at the end of an epoch.

    Attributes:
        plan: the dataset's plan, so that a checkpoint can be used by itself.
        configuration: name in the plan.
        fold: number, or "all".
        split: names of its training (`train`) and validation cases (`val`).
        network: the network's state as it is evaluated: the average of the training steps' where one is kept.
        settings: the trainer's hyper-parameters, JSON-able.
        provenance: where the starting weights came from, JSON-able.
        progress: epoch, step, seconds, best score, and whether training is complete.
        resume: what only going on needs: the state of the network as trained (`network`) and of the `optimizer`.
    """

    plan: Plan
    configuration: str
    fold: int | str
    split: dict[str, list[str]]
    network: dict[str, Tensor]
    settings: dict[str, Any]
    provenance: dict[str, Any]
    progress: dict[str, Any]
    resume: dict[str, Any] = field(default_factory=dict)

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
            "resume": self.resume,
        }
        with written_whole(path, RuntimeError) as temporary:
            torch.save(content, temporary)

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint, onto the CPU.

        Raises:
            UserError: the file is missing, damaged, or of another version.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch does not look at the checksums that it writes
            if damaged is not None:
                raise zipfile.BadZipFile(f"{damaged} is not as it was written")
            content = torch.load(path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise UserError(f"{path}: no such checkpoint.") from None
        except Exception as error:  # damaged files end in errors of every kind
            raise UserError(f"{path}: damaged or not a checkpoint. Train this fold again with --restart.") from error
        if not isinstance(content, dict) or content.pop("version", None) != CHECKPOINT_VERSION:
            raise UserError(f"{path}: a checkpoint of another version. Train this fold again with --restart.")
        try:
            content["plan"] = Plan.model_validate_json(content["plan"])
            checkpoint = cls(**content)
            if not checkpoint.progress.keys() >= {"complete", "epoch"}:
                raise KeyError("progress")
            return checkpoint
        except (ValidationError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: a checkpoint of an older version. Train this fold again with --restart."
            ) from error
