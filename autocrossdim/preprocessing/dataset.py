"""Preprocessing of cases for one configuration."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from autocrossdim.data.annotated_slices import read_annotation
from autocrossdim.data.dataset import Case, Dataset
from autocrossdim.data.geometry import Geometry, same_place
from autocrossdim.data.images import read_image, read_label
from autocrossdim.preprocessing.case import preprocess
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.plan import Configuration, Plan
from autocrossdim.records.sources import file_versions
from autocrossdim.system.console import say
from autocrossdim.system.errors import UserError
from autocrossdim.system.lock import locked
from autocrossdim.system.processes import map_cases
from autocrossdim.system.text import counted, listed


def preprocess_dataset(
    dataset: Dataset,
    plan: Plan,
    configuration: Configuration,
    store: Store,
    processes: int,
    *,
    cases: Sequence[Case] | None = None,
) -> list[str]:
    """Preprocess the training cases of a dataset; see `preprocess_cases`.

    Args:
        dataset: The raw dataset.
        plan: As for `preprocess_cases`.
        configuration: As for `preprocess_cases`.
        store: As for `preprocess_cases`.
        processes: As for `preprocess_cases`.
        cases: The training cases with the segmentations that a cascade needs; those of the dataset if None.

    Raises:
        UserError: A file cannot be read or written, or the plan was made for another `unannotated_slices`.
    """
    if dataset.labels.unannotated_slices != plan.labels.unannotated_slices:
        raise UserError(
            f"{dataset.path / 'dataset.json'}: unannotated_slices changed since the dataset was planned. Plan again "
            "with --overwrite."
        )
    cases = dataset.training_cases() if cases is None else cases
    return preprocess_cases(cases, plan, configuration, store, processes)


def preprocess_cases(
    cases: Sequence[Case], plan: Plan, configuration: Configuration, store: Store, processes: int
) -> list[str]:
    """Preprocess every case that is not stored yet, or whose image or label files changed since.

    Other cases are removed from the store.

    Args:
        cases: Training cases of the dataset, or its unlabelled scans.
        plan: Axis order, normalisation and labels.
        configuration: Target spacing and patch size.
        store: Destination.
        processes: Number of worker processes, each of which holds one case in memory.

    Returns:
        Names of the cases that were stored before and were preprocessed again.

    Raises:
        UserError: A file cannot be read or written.
    """
    with locked(store.lock, store.root, wait=True):  # folds that are started side by side preprocess the same cases
        store.prepare(plan, configuration)
        store.keep_only({case.name for case in cases})
        changed = [case.name for case in cases if store.has(case.name) and not store.is_current(case)]
        if changed:
            say(
                f"{counted(len(changed), 'case')} changed since preprocessing for {configuration.name}: "
                f"{listed(changed, 10)}. Preprocessing {'it' if len(changed) == 1 else 'them'} again."
            )
            store.remove(changed)
        missing = [case for case in cases if not store.has(case.name)]
        if missing:
            work = partial(_preprocess_case, plan, configuration, store)
            map_cases(work, missing, processes, f"Preprocessing for {configuration.name}")
        return changed


def _preprocess_case(plan: Plan, configuration: Configuration, store: Store, case: Case) -> None:
    source = file_versions(case.source_files)
    image = read_image(case.images)
    label = None if case.label is None else read_annotation(case.label, plan.labels)[0]
    try:
        preprocessed = preprocess(
            image.array,
            image.geometry.spacing,
            plan,
            configuration,
            label,
            orientation=image.geometry.orientation,
            previous_stage=None if case.previous_stage is None else _segmentation(case.previous_stage, image.geometry),
            overwrite=True,
        )
    except UserError as error:
        raise UserError(f"{case.images[0]}: {error}") from error
    store.write(case, image.geometry, preprocessed, plan, configuration.patch_shape, source)


def _segmentation(path: Path, geometry: Geometry) -> np.ndarray:
    """Return the segmentation of a previous stage, which must be on the grid of the image."""
    label, grid = read_label(path)
    if difference := same_place(geometry, grid):
        raise UserError(f"{path}: not on the grid of the image ({difference}). Delete it and train again.")
    return label
