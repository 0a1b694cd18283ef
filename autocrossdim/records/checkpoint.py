"""The checkpoint of a fold: tensors and JSON, nothing that could execute when it is opened."""

import hashlib
import zipfile
from collections.abc import Callable, Collection
from dataclasses import asdict, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, ValidationError
from pydantic.dataclasses import dataclass
from torch import Tensor

from autocrossdim.records.environment import Environment
from autocrossdim.records.plan import Plan
from autocrossdim.records.run_state import RunState
from autocrossdim.records.trained_on import Contents, TrainedOn
from autocrossdim.system.errors import UserError, first_fault, from_os_error
from autocrossdim.system.files import written_whole
from autocrossdim.system.text import counted, listed

CHECKPOINT_VERSION = 3
PREVIOUS = "previous"  # starting weights: those of the same fold, trained before cases were added to the dataset


@dataclass(config=ConfigDict(arbitrary_types_allowed=True, extra="forbid"))
class Checkpoint:
    """One fold of one configuration.

    Attributes:
        plan: Plan of the dataset, which makes the checkpoint usable by itself.
        configuration: Name of the configuration in the plan.
        fold: Number of the fold, or "all".
        split: Names of its training (`train`) and validation cases (`val`).
        network: State of the network that is evaluated: the running average of the weights, where there is one.
        settings: Settings of the trainer, JSON-able.
        provenance: Where the starting weights came from, JSON-able.
        run: How far training has come.
        sources: Content hash of the files of each training case (`Store.source_hash`), by name.
        images: Content hash of the image files of each scan it learned from (`Store.image_hash`), labelled or not, by
            name; empty if that was not recorded.
        requested: Names of the settings that differed from their defaults; None if that was not recorded.
        environments: Where and when it was trained; empty if that was not recorded.
        resume: Needed to resume only: the state of the network as trained (`network`), of the `optimizer`, and of the
            `loss_scale`, which is empty unless training runs in float16 and missing in older checkpoints.
    """

    plan: Plan
    configuration: str
    fold: int | str
    split: dict[str, list[str]]
    network: dict[str, Tensor]
    settings: dict[str, Any]
    provenance: dict[str, Any]
    run: RunState
    sources: dict[str, str] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)
    requested: list[str] | None = None
    environments: list[Environment] = field(default_factory=list)
    resume: dict[str, Any] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether training has reached its end."""
        return self.run.complete

    @property
    def trained_on(self) -> TrainedOn:
        """Scans that its weights were trained on, labelled or not, in this training and in those that it continues."""
        before = TrainedOn.of(self.provenance)
        names = before.names.union(self.split.get("train", ()), self.split.get("unlabelled", ()))
        return TrainedOn(names, {**before.contents, **self._names_by_content})

    @property
    def _names_by_content(self) -> dict[str, str]:
        """Names of the cases by the content hashes of their files."""
        return {content: name for hashes in (self.sources, self.images) for name, content in hashes.items()}

    @property
    def is_continuation(self) -> bool:
        """Whether it started from earlier weights of the same fold."""
        return self.provenance.get("asked") == PREVIOUS

    @property
    def first_weights(self) -> str | None:
        """Starting weights requested for the first of the trainings that it continues; None if not recorded."""
        asked: str | None = self.provenances[-1].get("asked")
        return asked

    @property
    def provenances(self) -> list[dict[str, Any]]:
        """Provenance of its training and of those that it continues (`--weights previous`), the latest first."""
        found = [self.provenance]
        while found[-1].get("asked") == PREVIOUS:
            found.append(found[-1].get("started_from", {}))
        return found

    @property
    def channel_dropout(self) -> float:
        """Probability with which a channel was left out of a patch in training."""
        return float(self.settings.get("channel_dropout", 0))

    @property
    def network_digest(self) -> str:
        """SHA-256 of the network: the same for a trained fold and for its copy in an exported file."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.items()):
            digest.update(name.encode())
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def outgrown(self, train: Collection[str], contents: Contents) -> str | None:
        """Say on which cases it was trained, to follow "fold 1 was"; None if on these, renamed or not.

        Args:
            train: Present training cases of its fold.
            contents: Gives the content hashes of a present case.
        """
        before, now = set(self.split.get("train", ())), set(train)
        left = {content: name for content, name in self._names_by_content.items() if name in before - now}
        former = {new: left[content] for new in now - before if left for content in left.keys() & contents(new)}
        known, gone = (before & now) | former.keys(), sorted(before - now - set(former.values()))
        if known == now and not gone:
            return None
        text = f"trained on {len(known)} of the {counted(len(now), 'current training case')}"
        return f"{text} and on {listed(gone)}, no longer among them" if gone else text

    def corrected(self, train: Collection[str], contents: Contents) -> list[str]:
        """Return the training cases whose files have changed since it was trained on them, sorted.

        Args:
            train: Present training cases of its fold.
            contents: Gives the content hashes of a present case.
        """
        known = {name: contents(name) for name in train if name in self.sources}
        return sorted(name for name, found in known.items() if found and self.sources[name] not in found)

    def learned_from(self, scans: Collection[str], image_hash: Callable[[str], str]) -> bool:
        """Return whether it learned from just these unlabelled scans, and from their present images.

        Args:
            scans: Names of the scans.
            image_hash: Gives the content hash of the present image files of a scan (`Store.image_hash`).
        """
        if set(self.split.get("unlabelled", ())) != set(scans):
            return False
        return all(self.images[name] == image_hash(name) for name in scans if name in self.images)

    def write(self, path: Path) -> None:
        """Write the checkpoint, whole or not at all."""
        content = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        content |= {"version": CHECKPOINT_VERSION, "plan": self.plan.model_dump_json(), "run": asdict(self.run)}
        content["environments"] = [each.model_dump(mode="json") for each in self.environments]
        with written_whole(path, RuntimeError) as temporary:
            torch.save(content, temporary)

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Read a checkpoint to the CPU.

        Raises:
            UserError: The file is missing, damaged, or of another version.
        """
        content = _load(path)
        version = content.pop("version", None) if isinstance(content, dict) else None
        if version != CHECKPOINT_VERSION:
            raise UserError(
                f"{path}: written by another version of autocrossdim (checkpoint version {version}; this is "
                f"{CHECKPOINT_VERSION}). Train this fold again with --restart."
            )
        try:
            content["plan"] = Plan.model_validate_json(content["plan"])
            return cls(**content)
        except (ValidationError, KeyError, TypeError) as error:
            reason = first_fault(error) if isinstance(error, ValidationError) else f"{error}"
            raise UserError(
                f"{path}: not a valid checkpoint ({reason}). Train this fold again with --restart."
            ) from error


def reader() -> Callable[[Path], Checkpoint]:
    """Return a function that reads each checkpoint once and keeps it without its weights, which take memory.

    It raises the errors of `Checkpoint.read`.
    """

    @cache
    def read(path: Path) -> Checkpoint:
        return replace(Checkpoint.read(path), network={}, resume={})

    return read


def _load(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()  # torch writes checksums but does not verify them
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} does not match its checksum")
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint.") from None
    except (PermissionError, IsADirectoryError) as error:
        raise from_os_error(error, path, "read") from error
    except Exception as error:  # damaged files raise errors of every kind
        raise UserError(f"{path}: damaged or not a checkpoint. Train this fold again with --restart.") from error
