"""Preprocessed cases of a configuration; those of a cascade contain the segmentations by the previous stage.

Each case is segmented by the fold of the previous stage that was not trained on it, as new cases will be.
"""

from dataclasses import replace
from pathlib import Path

from autocrossdim.data.dataset import Case
from autocrossdim.preprocessing.dataset import preprocess_dataset
from autocrossdim.preprocessing.store import Store
from autocrossdim.selection.folds import CrossValidation, Unusable, budget_of
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import listed


def preprocessed(work: CrossValidation, name: str) -> Store:
    """Return the store of a configuration; cases that are missing or outdated are preprocessed.

    Raises:
        UserError: The previous stage of a cascade is not trained and validated in all folds.
    """
    store, configuration = Store(work.workspace.preprocessed(name)), work.plan.configuration(name)
    cases = training_cases(work, name)
    preprocess_dataset(work.dataset, work.plan, configuration, store, work.processes, cases=cases)
    return store


def training_cases(work: CrossValidation, name: str) -> list[Case]:
    """Return the training cases of a configuration; for a cascade, with the segmentations by the previous stage.

    Raises:
        UserError: As `preprocessed`.
    """
    cases = work.dataset.training_cases()
    if work.plan.configuration(name).previous_stage is None:
        return cases
    paths = held_out_segmentations(work, name)
    return [replace(case, previous_stage=paths[case.name]) for case in cases]


def held_out_segmentations(work: CrossValidation, name: str) -> dict[str, Path]:
    """Return the segmentation of each training case by the previous stage of a cascade.

    Args:
        work: The dataset and its folds.
        name: Configuration of the cascade.

    Raises:
        UserError: A fold of the previous stage cannot be used, or a case is in no validation set.
    """
    stage = work.plan.configuration(name).previous_stage
    assert stage is not None
    command = f"`{work.command('train', '--config', stage)}`"
    found: dict[str, Path] = {}
    for fold, split in enumerate(work.splits):
        try:
            budget_of(work, stage, fold)
        except Unusable as problem:
            raise UserError(
                f"{name} needs the segmentations of held-out cases by {stage}, but fold {fold} of {stage} is "
                f"{problem}. Run {command} first."
            ) from problem
        folder = work.fold((stage,), fold).validation
        found |= {case: folder / f"{case}{work.plan.file_ending}" for case in split.val}
    if missing := [case for case, path in found.items() if not path.exists()]:
        raise UserError(f"{name} needs the segmentation of {listed(missing)} by {stage}. Run {command} first.")
    if never := [case.name for case in work.dataset.training_cases() if case.name not in found]:
        raise UserError(
            f"{work.workspace.splits}: no validation set contains {listed(never)}, but {name} needs the segmentation "
            f"of each case by a fold of {stage} that was not trained on it. Run `autocrossdim plan_and_preprocess` to "
            "add new cases."
        )
    return found
