"""Where a trained model comes from: the results in a work directory, or an exported file."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

from autocrossdim.data.find import find_dataset
from autocrossdim.models.hub import FILE, fetch, is_on_hub
from autocrossdim.models.model_file import SUFFIX, ModelFile
from autocrossdim.records.best import Best, contender_name
from autocrossdim.records.checkpoint import PREVIOUS, Checkpoint
from autocrossdim.records.codes import Codes, parse_codes
from autocrossdim.records.plan import DISTILLED, Plan
from autocrossdim.records.workspace import FoldFolder, Workspace, default_work
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json

Fold = int | str

OMNIA = "omnia"  # starting weights: the trained Omnia-Net of the same dataset and fold


def is_model(weights: str) -> bool:
    """Return whether `weights` names a trained model rather than encoder weights or `random`."""
    path = Path(weights)
    return (
        weights in (OMNIA, PREVIOUS)
        or is_on_hub(weights)
        or weights.endswith(SUFFIX)
        or path.is_dir()
        or path.name.startswith("checkpoint_")
    )


class ModelSource(Protocol):
    """Trained folds of one or more configurations.

    In every method, `fold` and `config` name the folds and configurations to use; if empty, all trained folds and the
    configurations that `best.json`, else the plan, names.
    """

    @property
    def codes(self) -> Codes:
        """Concepts of the labels in a terminology, for the labels that have one."""
        ...

    def selection(self, *, fold: Sequence[Fold] = (), config: Sequence[str] = ()) -> Mapping[str, Sequence[object]]:
        """Return the folds to use of each configuration.

        Raises:
            UserError: A fold or configuration is not there, or nothing is trained.
        """
        ...

    def checkpoints(
        self, *, fold: Sequence[Fold] = (), config: Sequence[str] = ()
    ) -> list[Iterator[tuple[Path, Checkpoint]]]:
        """Return the checkpoints of each configuration, read one at a time, each with the file it comes from.

        Raises:
            UserError: As `selection`; later, a checkpoint is damaged.
        """
        ...

    def stage(self, name: str, *, fold: Sequence[Fold] = ()) -> Iterator[tuple[Path, Checkpoint]]:
        """Return the checkpoints of a configuration that is the previous stage of a cascade.

        They are those of the folds to use that are trained; all trained folds if none of them is.

        Raises:
            UserError: It is not trained, or not in the file.
        """
        ...

    def best_for(self, *, fold: Sequence[Fold] = (), config: Sequence[str] = ()) -> tuple[Best | None, list[str]]:
        """Return what `find_best` learnt about these models, if it applies to them, and notes about it.

        Raises:
            UserError: `best.json` chose the configurations, but is damaged or outdated.
        """
        ...


def open_model(model: str | Path | int, *, work: str | Path | None = None) -> ModelSource:
    """Return the source of a model.

    Args:
        model: Exported file, its address on the hub (`hf://OWNER/NAME`), copy of a repository of the hub, with
            `model.acd`, model directory (with `fold_0` and so on), directory of the results of a dataset, or dataset
            (path, name or number).
        work: Directory of all results.

    Raises:
        UserError: There is no such model, it cannot be downloaded, or the exported file is damaged.
    """
    model, folder = str(model), Path(str(model))
    if exported := find_exported(model):
        return ModelFile.read(exported[0])
    if folder.is_file():  # no model, or one without the ending of its name
        return ModelFile.read(folder)
    if any(folder.glob("fold_*")):
        return ModelFolder(folder)
    if FoldFolder(folder).latest.exists():
        raise UserError(f"{folder}: a single fold. Give {folder.parent} and select the fold with --fold.")
    return WorkFolder(_workspace(model, None if work is None else Path(work)))


def find_exported(model: str) -> tuple[Path, str] | None:
    """Return the exported file that `model` means, on the hub, by its path or in a copy of a repository, with its name.

    Raises:
        UserError: It cannot be downloaded.
    """
    if is_on_hub(model):
        found = fetch(model)
        return found.path, found.name
    if model.endswith(SUFFIX) and not Path(model).is_dir():
        return Path(model), model
    # A copy of a repository of the hub, and no place where somebody put a model file.
    others = ("dataset.json", "plan.json", "fold_*")
    is_repository = (Path(model) / FILE).is_file() and not any(any(Path(model).glob(name)) for name in others)
    return (Path(model) / FILE, model) if is_repository else None


@dataclass(frozen=True)
class WorkFolder:
    """The results of a dataset.

    Attributes:
        workspace: Its paths.
    """

    workspace: Workspace

    @property
    def codes(self) -> Codes:
        """Concepts of the labels; see `ModelSource`."""
        return read_codes(self.workspace)

    def selection(self, *, fold: Sequence[Fold] = (), config: Sequence[str] = ()) -> dict[str, list[Path]]:
        """Return the checkpoints to use of each configuration; see `ModelSource`."""
        self.workspace.require_plan()
        plan = Plan.read(self.workspace.plan)
        names: Sequence[str] = config or [plan.decision.configuration]
        if not config and self.workspace.best.exists():
            best = Best.read(self.workspace.best)
            names, fold = best.configurations, fold or best.folds
        return {name: _folds(self.workspace.model(plan.configuration(name).name), fold) for name in names}

    def checkpoints(
        self, *, fold: Sequence[Fold] = (), config: Sequence[str] = ()
    ) -> list[Iterator[tuple[Path, Checkpoint]]]:
        """Return the checkpoints of each configuration; see `ModelSource`."""
        return [_read(paths) for paths in self.selection(fold=fold, config=config).values()]

    def stage(self, name: str, *, fold: Sequence[Fold] = ()) -> Iterator[tuple[Path, Checkpoint]]:
        """Return the checkpoints of a previous stage; see `ModelSource`."""
        return _read(_trained_folds(self.workspace.model(name), fold))

    def best_for(self, *, fold: Sequence[Fold] = (), config: Sequence[str] = ()) -> tuple[Best | None, list[str]]:
        """Return what `find_best` learnt about these models; see `ModelSource`."""
        return _best(self.workspace, fold, config)


@dataclass(frozen=True)
class ModelFolder:
    """The folds of one configuration.

    Attributes:
        folder: Model directory, `.../models/omnia` for example.
    """

    folder: Path

    @property
    def codes(self) -> Codes:
        """Concepts of the labels; see `ModelSource`."""
        return read_codes(Workspace.of_model(self.folder))

    def selection(self, *, fold: Sequence[Fold] = (), config: Sequence[str] = ()) -> dict[str, list[Path]]:
        """Return the checkpoints to use; see `ModelSource`."""
        if config:
            raise UserError(f"--config {config[0]}: {self.folder} holds a single configuration. Omit --config.")
        return {self.folder.resolve().name: _folds(self.folder, fold)}

    def checkpoints(
        self, *, fold: Sequence[Fold] = (), config: Sequence[str] = ()
    ) -> list[Iterator[tuple[Path, Checkpoint]]]:
        """Return the checkpoints; see `ModelSource`."""
        return [_read(paths) for paths in self.selection(fold=fold, config=config).values()]

    def stage(self, name: str, *, fold: Sequence[Fold] = ()) -> Iterator[tuple[Path, Checkpoint]]:
        """Return the checkpoints of a previous stage, whose directory is beside this one; see `ModelSource`."""
        return _read(_trained_folds(self.folder.resolve().parent / name, fold))

    def best_for(self, *, fold: Sequence[Fold] = (), config: Sequence[str] = ()) -> tuple[Best | None, list[str]]:
        """Return what `find_best` learnt about this configuration; see `ModelSource`."""
        return _best(Workspace.of_model(self.folder), fold, [self.folder.resolve().name])


def read_codes(workspace: Workspace) -> Codes:
    """Return the concepts of the labels from the copy of dataset.json; none if it is not at hand.

    Raises:
        UserError: The key `codes` is malformed.
    """
    if not workspace.dataset_json.exists():
        return {}
    content = read_json(workspace.dataset_json)
    codes, faults = parse_codes(workspace.dataset_json, content.get("codes", {}), content.get("labels", {}))
    if faults:
        raise UserError("\n".join(faults))
    return codes


def _read(paths: Sequence[Path]) -> Iterator[tuple[Path, Checkpoint]]:
    return ((path, Checkpoint.read(path)) for path in paths)


def _best(workspace: Workspace, fold: Sequence[Fold], named: Sequence[str]) -> tuple[Best | None, list[str]]:
    """Return the content of best.json if it applies, and notes.

    If it chose the configurations, it must still be true. If configurations were named, it applies if it chose just
    these and nothing has changed since.
    """
    if not workspace.best.exists():
        return None, []
    try:
        best = Best.read(workspace.best)
    except UserError as error:
        if not named:
            raise
        return None, [f"{error} Its post-processing and calibration are not applied."]
    if named and set(named) != set(best.configurations):
        return None, [f"{workspace.best} is about {best.name}: its post-processing and calibration are not applied."]
    changed = best.outdated(workspace, fold)
    if changed is None:
        return best, [f"{workspace.best}: {best.name}, {best.result}."]
    if not named:
        raise UserError(
            f"{workspace.best}: {changed} since it was written. Run `autocrossdim find_best` again, or name "
            f"configurations with --config ({contender_name(best.configurations)} was chosen)."
        )
    return None, [f"{workspace.best}: {changed} since it was written, so it is not applied."]


def _workspace(model: str | Path, work: Path | None) -> Workspace:
    if Workspace(Path(model)).plan.exists():
        return Workspace(Path(model))
    work = work or default_work()
    # Results are enough: the raw dataset need not be on this machine.
    named = [folder for folder in (work.iterdir() if work.is_dir() else ()) if _is_called(folder.name, str(model))]
    if len(named) == 1:
        return Workspace(named[0])
    return Workspace.of(find_dataset(model).name, work)


def _is_called(folder: str, name: str) -> bool:
    """Return whether `name` is a path to `folder`, its name, or its short name or number (`Hippocampus`, `4`)."""
    number, _, short = folder.removeprefix("Dataset").partition("_")
    asked = Path(os.path.normpath(name)).name
    return asked in (folder, short) or (asked.isdecimal() and number.isdecimal() and int(asked) == int(number))


def _trained_folds(model: Path, wanted: Sequence[Fold]) -> list[Path]:
    """Return the checkpoints of those of the wanted folds that are trained; of all trained folds if none of them is."""
    return _folds(model, [fold for fold in wanted if FoldFolder(model / f"fold_{fold}").latest.exists()])


def with_stages(
    source: ModelSource, *, fold: Sequence[Fold] = (), config: Sequence[str] = ()
) -> Iterator[tuple[Path, Checkpoint, bool]]:
    """Yield the checkpoints to use and then those of the previous stages they need, which are not averaged.

    Args:
        source: Trained folds.
        fold: As for `ModelSource`.
        config: As for `ModelSource`.

    Yields:
        File, checkpoint, and whether it is that of a previous stage only.
    """
    averaged: set[str] = set()
    stages: dict[str, None] = {}
    for path, checkpoint in chain.from_iterable(source.checkpoints(fold=fold, config=config)):
        averaged.add(checkpoint.configuration)
        if stage := checkpoint.plan.configuration(checkpoint.configuration).previous_stage:
            stages[stage] = None
        yield path, checkpoint, False
    for name in stages:
        if name not in averaged:
            yield from ((path, checkpoint, True) for path, checkpoint in source.stage(name, fold=fold))


def _folds(model: Path, wanted: Sequence[Fold]) -> list[Path]:
    is_student = model.resolve().name.endswith(DISTILLED)
    command = "distil" if is_student else "train"
    if wanted:
        folders = [FoldFolder(model / f"fold_{fold}") for fold in wanted]
        missing = [folder.root.name for folder in folders if not folder.latest.exists()]
        if missing:
            raise UserError(f"{model}: {', '.join(missing)} is not trained. Run `autocrossdim {command}` for it.")
        return [folder.latest for folder in folders]
    numbered, complete = (sorted(model.glob(f"fold_{name}/checkpoint_latest")) for name in ("[0-9]*", "all"))
    # One network is what a student is for.
    found = complete or numbered if is_student else numbered or complete
    if not found:
        raise UserError(f"{model}: no trained fold. Run `autocrossdim {command}` first.")
    return found
