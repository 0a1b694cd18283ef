"""Where trained folds come from."""

import os
from collections.abc import Sequence
from pathlib import Path

from autocrossdim.data.dataset import find_dataset
from autocrossdim.records.best import Best, contender_name
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import FoldFolder, Workspace, default_work
from autocrossdim.system.errors import UserError


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
    names: Sequence[str] = configurations or [plan.decision.configuration]
    if not configurations and space.best.exists():
        best = Best.read(space.best)
        names, folds = best.configurations, folds or best.folds
    return [_folds(space.model(plan.configuration(name).name), folds) for name in names]


def find_best_for(
    model: str | Path, work: Path | None, folds: Sequence[int | str], configurations: Sequence[str]
) -> tuple[Best | None, list[str]]:
    """Return what `best.json` says of the models that `find_checkpoints` finds for the same words, and notes about it.

    Where it was followed to choose the configurations, it must still be true; where configurations were named, it
    counts if it chose just these and nothing has changed since.

    Raises:
        UserError: it was followed, and is damaged or rests on a plan or on checkpoints that have changed.
    """
    folder = Path(model)
    single = any(folder.glob("fold_*"))
    space = Workspace(folder.resolve().parents[1]) if single else _workspace(model, work)
    named = [folder.resolve().name] if single else list(configurations)
    if not space.best.exists():
        return None, []
    try:
        best = Best.read(space.best)
    except UserError as error:
        if not named:
            raise
        return None, [f"{error} Nothing of it is applied."]
    if named and set(named) != set(best.configurations):
        return None, [f"{space.best} is about {best.name}: its post-processing and calibration are not applied."]
    changed = best.outdated(space, folds)
    if changed is None:
        return best, [f"{space.best}: {best.name}, mean Dice {best.dice_postprocessed:.3f} in the cross-validation."]
    if not named:
        raise UserError(
            f"{space.best}: {changed} since it was written. Run `autocrossdim find_best` again, or name configurations "
            f"with --config ({contender_name(best.configurations)} was chosen)."
        )
    return None, [f"{space.best}: {changed} since it was written, so nothing of it is applied."]


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
