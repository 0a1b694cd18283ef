"""What `predict` is pointed at: which trained folds, and which cases."""

import os
from collections.abc import Sequence
from pathlib import Path

from autocrossdim.data.dataset import Case, cases_in_folder, find_dataset
from autocrossdim.data.images import file_ending
from autocrossdim.errors import UserError
from autocrossdim.files import read_json
from autocrossdim.plan import Plan
from autocrossdim.workspace import FoldFolder, Workspace, default_work


def find_checkpoints(
    model: str | Path, work: Path | None, folds: Sequence[int | str], configurations: Sequence[str]
) -> list[list[Path]]:
    """Return the checkpoints to average, one list of folds a configuration.

    Args:
        model: a model folder (holding `fold_0` and so on), the folder of a dataset's results, or a dataset.
        work: where datasets' results lie.
        folds: folds asked for; all there are if empty.
        configurations: configurations asked for; what `best.json`, else the plan, names if empty.

    Raises:
        UserError: nothing trained is there.
    """
    folder = Path(model)
    if any(folder.glob("fold_*")):
        if configurations:
            raise UserError(f"--config {configurations[0]}: {folder} is a single configuration already.")
        return [_folds(folder, folds)]
    if FoldFolder(folder).latest.exists():
        raise UserError(f"{folder}: a single fold. Give {folder.parent} and choose with --fold.")
    space = _workspace(model, work)
    space.require_plan()
    plan = Plan.read(space.plan)
    best = read_json(space.best) if space.best.exists() and not configurations else {}
    if not isinstance(best, dict):
        raise UserError(f"{space.best}: damaged. Delete it, or name configurations with --config.")
    names = list(configurations) or best.get("configurations") or [plan.decision.configuration]
    return [_folds(space.model(plan.configuration(name).name), folds) for name in names]


def _workspace(model: str | Path, work: Path | None) -> Workspace:
    if (Path(model) / "plan.json").exists():
        return Workspace(Path(model))
    work = work or default_work()
    # Results are enough: the raw dataset need not be on this machine.
    named = [folder for folder in (work.iterdir() if work.is_dir() else ()) if _is_called(folder.name, str(model))]
    if len(named) == 1:
        return Workspace(named[0])
    return Workspace.of(find_dataset(model).name, work)


def _is_called(folder: str, name: str) -> bool:
    """Whether `Dataset004_Hippocampus` is meant by a path to it, its name, `Hippocampus`, or `4`."""
    number, _, short = folder.removeprefix("Dataset").partition("_")
    asked = Path(os.path.normpath(name)).name
    return asked in (folder, short) or (asked.isdecimal() and number.isdecimal() and int(asked) == int(number))


def _folds(model: Path, asked: Sequence[int | str]) -> list[Path]:
    if asked:
        folders = [FoldFolder(model / f"fold_{fold}") for fold in asked]
        absent = [folder.root.name for folder in folders if not folder.latest.exists()]
        if absent:
            raise UserError(f"{model}: {', '.join(absent)} is not trained. Run `autocrossdim train` for it.")
        return [folder.latest for folder in folders]
    found = sorted(model.glob("fold_[0-9]*/checkpoint_latest")) or sorted(model.glob("fold_all/checkpoint_latest"))
    if not found:
        raise UserError(f"{model}: no trained fold. Run `autocrossdim train` first.")
    return found


def find_inputs(source: Path, channels: int, ending: str) -> list[Case]:
    """Return the cases to segment.

    Args:
        source: folder of images, the first file of one case, the folder of a DICOM series, or a folder of those.
        channels: the model's number of channels.
        ending: of the images the model was trained on.

    Raises:
        UserError: nothing is there, or a channel is missing.
    """
    if not source.exists():
        raise UserError(f"-i {source}: no such file or folder.")
    if source.is_dir():
        return cases_in_folder(source, channels, ending)
    found = file_ending(source)
    stem = source.name[: -len(found)]
    if channels > 1 and stem.endswith("_0000"):
        siblings = [source.with_name(f"{stem[:-5]}_{channel:04d}{found}") for channel in range(channels)]
        if siblings[1].exists():
            return [Case(stem[:-5], tuple(siblings), None)]
    return [Case(stem.removesuffix("_0000"), (source,), None)]
