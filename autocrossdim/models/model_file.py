"""What a model file holds, read without trusting it: everything is checked before it is used, nothing can execute."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from pydantic import BaseModel, ValidationError
from torch import Tensor

from autocrossdim.models.about import About
from autocrossdim.models.archive import AGAIN, Archive
from autocrossdim.networks.build import build_network
from autocrossdim.records.best import BEST_VERSION, Best, plan_digest
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.codes import Codes
from autocrossdim.records.plan import PLAN_VERSION, Configuration, Plan
from autocrossdim.records.run_state import RunState
from autocrossdim.system.errors import UserError, first_fault
from autocrossdim.system.text import printable

SUFFIX = ".acd"
PLAN, BEST, ABOUT, CARD = "plan.json", "best.json", "about.json", "MODEL_CARD.md"
TEXT_BYTES = 4 * 1024**2  # of a JSON member or the card; real ones have some 10 kB

_WEIGHTS = re.compile(r"weights/(\w{1,50})/(fold_(?:0|[1-9]\d{0,3}|all))\.safetensors", re.ASCII)
_HEADER_BYTES = 1024  # of a tensor's entry in a safetensors header; real ones have some 150 bytes

Model = TypeVar("Model", bound=BaseModel)


def weights_name(configuration: str, fold: int | str) -> str:
    """Return the name of the member with the weights of a fold."""
    return f"weights/{configuration}/fold_{fold}.safetensors"


@dataclass(frozen=True)
class ModelFile:
    """An exported file.

    Attributes:
        archive: The checked zip file.
        plan: Plan with only the configurations in the file.
        about: Data, training and results.
        best: Result of `find_best` for the configurations in the file; None without one.
        folds: Names of the folds (`fold_0`) of each configuration, in the order in which they are averaged.
    """

    archive: Archive
    plan: Plan
    about: About
    best: Best | None
    folds: dict[str, list[str]]

    @classmethod
    def read(cls, path: str | Path) -> "ModelFile":
        """Check a file and read everything but the weights.

        Raises:
            UserError: No such file, damaged, of another version, or holding what does not belong there.
        """
        archive = Archive.open(Path(path))
        found: dict[str, list[str]] = {}
        for name in sorted(archive.manifest.members):
            weights = _WEIGHTS.fullmatch(name)
            if weights:
                found.setdefault(weights[1], []).append(weights[2])
            elif name not in (PLAN, BEST, ABOUT, CARD):
                raise UserError(f"{path}: {name!a} does not belong in a model file. {AGAIN}")
        plan = _parsed(archive, PLAN, Plan)
        _require_version(archive, PLAN, plan.version, PLAN_VERSION)
        about = _parsed(archive, ABOUT, About)
        folds = {name: list(trained.folds) for name, trained in about.configurations.items()}
        if not found or found.keys() != plan.configurations.keys():
            raise UserError(f"{path}: its weights are not those of the configurations in {PLAN}. {AGAIN}")
        if {name: sorted(names) for name, names in folds.items()} != found:
            raise UserError(f"{path}: {ABOUT} is not about the weights in it. {AGAIN}")
        best = _parsed(archive, BEST, Best) if BEST in archive.manifest.members else None
        if best is not None:
            _require_version(archive, BEST, best.version, BEST_VERSION)
        if best is not None and not belongs(best, plan):
            raise UserError(f"{path}: {BEST} is not about the configurations in it. {AGAIN}")
        return cls(archive, plan, about, best, folds)

    @property
    def path(self) -> Path:
        """Path of the file."""
        return self.archive.path

    @property
    def codes(self) -> Codes:
        """Concepts of the labels in a terminology, for the labels that have one."""
        return self.about.codes

    def selection(self, *, fold: Sequence[int | str] = (), config: Sequence[str] = ()) -> dict[str, list[str]]:
        """Return the names of the folds to use by configuration; by default, all folds that are averaged.

        Raises:
            UserError: A fold or configuration is not in the file.
        """
        for name in config:
            if name not in self.folds:
                raise UserError(f"--config {name}: {self.path} contains {', '.join(self.folds)}.")
        averaged = [name for name, trained in self.about.configurations.items() if not trained.stage_only]
        result = {name: self.folds[name] for name in config or averaged}
        for name, existing in result.items():
            missing = [str(number) for number in fold if f"fold_{number}" not in existing]
            if missing:
                raise UserError(f"--fold {missing[0]}: {self.path} contains {', '.join(existing)} of {name}.")
            if fold:
                result[name] = [f"fold_{number}" for number in fold]
        return result

    def best_for(self, *, fold: Sequence[int | str] = (), config: Sequence[str] = ()) -> tuple[Best | None, list[str]]:
        """Return what `find_best` learnt about these configurations (all, if none is named), and notes about it."""
        if self.best is None:
            return None, []
        name = self.best.name
        if config and set(config) != set(self.best.configurations):
            return None, [f"{self.path}: its {BEST} is about {name}: post-processing and calibration are not applied."]
        return self.best, [f"{self.path}: {name}, {self.best.result}."]

    def checkpoints(
        self, *, fold: Sequence[int | str] = (), config: Sequence[str] = ()
    ) -> list[Iterator[tuple[Path, Checkpoint]]]:
        """Return the folds of each configuration, read one at a time, each with the path of the file.

        Args:
            fold: Folds to use of each configuration; all if empty.
            config: Configurations to use; all if empty.

        Raises:
            UserError: A fold or configuration is not in the file; later, weights are damaged or do not fit the plan.
        """
        return [self._checkpoints(name, names) for name, names in self.selection(fold=fold, config=config).items()]

    def stage(self, name: str, *, fold: Sequence[int | str] = ()) -> Iterator[tuple[Path, Checkpoint]]:
        """Return the folds of a previous stage: those named that are in the file, or all if none of them is.

        Raises:
            UserError: It is not in the file.
        """
        if name not in self.folds:
            raise UserError(
                f"{self.path}: contains {', '.join(self.folds)}, but not {name}, the previous stage. {AGAIN}"
            )
        existing = self.folds[name]
        return self._checkpoints(name, [f"fold_{each}" for each in fold if f"fold_{each}" in existing] or existing)

    def _checkpoints(self, configuration: str, folds: Sequence[str]) -> Iterator[tuple[Path, Checkpoint]]:
        expected = self._network_state(self.plan.configurations[configuration])
        for fold in folds:
            number = fold.removeprefix("fold_")
            trained = self.about.configurations[configuration].folds[fold]
            checkpoint = Checkpoint(
                plan=self.plan,
                configuration=configuration,
                fold=int(number) if number.isdecimal() else number,
                split={},
                network=self._weights(weights_name(configuration, number), expected),
                settings={"channel_dropout": trained.channel_dropout},
                provenance=trained.start.model_dump(),
                run=RunState(complete=True),
            )
            yield self.path, checkpoint

    def _network_state(self, configuration: Configuration) -> dict[str, Tensor]:
        """The planned network's tensors, without memory: a plan shall not ask for more than the file holds."""
        try:
            with torch.device("meta"):
                state: dict[str, Tensor] = build_network(self.plan.network_plan(configuration), None).state_dict()
            return state
        except Exception as error:  # a plan that was tampered with fails anywhere in building
            reason = first_fault(error) if isinstance(error, ValidationError) else printable(str(error))
            raise UserError(
                f"{self.path}: the network of '{configuration.name}' cannot be built ({reason})."
            ) from error

    def _weights(self, member: str, expected: dict[str, Tensor]) -> dict[str, Tensor]:
        bytes_ = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
        content = self.archive.read(member, bytes_ + _HEADER_BYTES * (len(expected) + 1))
        try:
            state = safetensors.torch.load(content)
        except Exception as error:  # safetensors raises its own errors, Python's and torch's
            raise UserError(f"{self.path}: {member} is not a safetensors file. {AGAIN}") from error
        for name in sorted(expected.keys() | state.keys()):
            saved, wanted = state.get(name), expected.get(name)
            if saved is None or wanted is None or (saved.shape, saved.dtype) != (wanted.shape, wanted.dtype):
                raise UserError(f"{self.path}: {member} is not of the planned network ({name!a} differs). {AGAIN}")
            if not saved.isfinite().all():
                raise UserError(f"{self.path}: {member} holds NaN or infinite values ({name}). {AGAIN}")
        return state


def belongs(best: Best, plan: Plan) -> bool:
    """Whether `best` is about all configurations of `plan` and can be applied to its segmentations.

    Previous stages of cascades are in the plan without being averaged.
    """
    values = {value for step in best.postprocessing for value in (*step.values, step.replaced_by)}
    return (
        set(best.configurations) <= plan.configurations.keys()
        and set(plan.with_stages(best.configurations)) == plan.configurations.keys()
        and best.plan_digest == plan_digest(plan, best.configurations)
        and values <= set(plan.labels.values)
        and 0 < best.calibration.temperature < math.inf
    )


def _require_version(archive: Archive, name: str, version: int, known: int) -> None:
    if version != known:
        raise UserError(
            f"{archive.path}: {name} is of version {version}, but this program reads version {known}. "
            "Export it again with this program, or update it."
        )


def _parsed(archive: Archive, name: str, model: type[Model]) -> Model:
    content = archive.read(name, TEXT_BYTES)
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise UserError(f"{archive.path}: {name} is not valid ({first_fault(error)}). {AGAIN}") from error
