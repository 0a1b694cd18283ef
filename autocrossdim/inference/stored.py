"""Ensembles of stored probabilities that `predict --probabilities` wrote to several directories."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch

from autocrossdim.data.geometry import Geometry, same_place
from autocrossdim.data.images import read_label
from autocrossdim.inference.restore import to_label
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import written_whole
from autocrossdim.system.text import by_axis, counted, listed


def write_probabilities(path: Path, values: np.ndarray, labels: Labels, *, calibrated: bool) -> None:
    """Write the probabilities of a case to a `.npz` file, with the labels that they are about.

    Args:
        path: Path of the file.
        values: Probabilities (K, Z, Y, X), float16.
        labels: Labels of the model.
        calibrated: Whether they have the temperature that `find_best` fitted.
    """
    about = np.array(labels.model_dump_json())
    with written_whole(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, probabilities=values, labels=about, calibrated=np.array(calibrated))


def stored_cases(folders: Sequence[Path]) -> list[str]:
    """Return the names of the cases whose probabilities are in every directory, sorted.

    Raises:
        UserError: A directory has no probabilities, or lacks a case that another one has.
    """
    found = {folder: {file.stem for file in folder.glob("[!.]*.npz")} for folder in folders}
    all_cases = set[str]().union(*found.values())
    for folder, cases in found.items():
        if not cases:
            raise UserError(f"{folder}: contains no probabilities (CASE.npz). Run `predict --probabilities` first.")
        if missing := sorted(all_cases - cases):
            raise UserError(
                f"{folder}: {counted(len(missing), 'case')} of the other directories missing, {missing[0]}.npz for "
                "example. Predict the same cases with each model."
            )
    return sorted(all_cases)


def by_calibration(folders: Sequence[Path], case: str) -> tuple[list[Path], list[Path]]:
    """Return the directories whose probabilities are calibrated, and those whose are not.

    Those of nnU-Net and of earlier versions, which do not say, are left out.

    Args:
        folders: Directories with `CASE.npz`.
        case: Name of a case.

    Raises:
        UserError: A file is damaged.
    """
    known = {}
    for folder in folders:
        with _opened(folder / f"{case}.npz") as content:
            if "calibrated" in content:
                known[folder] = bool(content["calibrated"])
    return [folder for folder in known if known[folder]], [folder for folder in known if not known[folder]]


def average_stored(folders: Sequence[Path], case: str, *, labels: Labels, ending: str) -> tuple[np.ndarray, Geometry]:
    """Return the label values (Z, Y, X) from the mean of the stored probabilities, and their geometry.

    Probabilities are stored as float16, so the result may differ from an ensemble in memory at voxels where two labels
    are equally probable to three digits. They are averaged as stored: calibrated if `find_best` chose
    the model.

    Args:
        folders: Directories with `CASE.npz` and the segmentation of each case.
        case: Name of the case.
        labels: Labels of the dataset.
        ending: File ending of the segmentations.

    Raises:
        UserError: A file is missing or damaged, or has other labels or another grid than in the first directory.
    """
    _, geometry = read_label(folders[0] / f"{case}{ending}")
    for folder in folders[1:]:
        difference = same_place(geometry, read_label(folder / f"{case}{ending}")[1])
        if difference is not None:
            raise UserError(
                f"{folder / case}{ending}: the grid differs from that of {folders[0] / case}{ending} ({difference}). "
                "Predict the same images with each model."
            )
    stored = [_probabilities(folder / f"{case}.npz", labels, geometry) for folder in folders]
    label = np.empty(geometry.shape, dtype=np.min_scalar_type(labels.values[-1]))
    for z in range(len(label)):  # slice by slice, to avoid a second copy of all probabilities
        mean = torch.stack([torch.from_numpy(values[:, z].astype(np.float32)) for values in stored]).mean(dim=0)
        label[z] = to_label(mean, labels)
    return label, geometry


def _probabilities(path: Path, labels: Labels, geometry: Geometry) -> np.ndarray:
    """Return the probabilities in a file. nnU-Net's files, and those of earlier versions, do not name their labels."""
    shape = (labels.num_outputs, *geometry.shape)
    with _opened(path) as content:
        values: np.ndarray = content["probabilities"]
        stored = Labels.model_validate_json(str(content["labels"])) if "labels" in content else labels
    if (found := list(stored.foreground.items())) != (declared := list(labels.foreground.items())):
        raise UserError(
            f"{path}: probabilities of the labels {_named(found)}, but dataset.json declares {_named(declared)}. "
            "Use the dataset of these models, and models with the same labels."
        )
    if values.shape != shape or not np.issubdtype(values.dtype, np.floating):
        raise UserError(
            f"{path}: probabilities of shape {by_axis(values.shape)}, but the labels of the dataset and the grid of "
            f"the image need {by_axis(shape)} (labels, z, y, x). Predict this case again."
        )
    return values


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a `.npz` file."""
    try:
        with np.load(path, allow_pickle=False) as content:
            yield content
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path}: the file is damaged or was not written by `predict --probabilities`. Predict this case again."
        ) from error


def _named(labels: Sequence[tuple[str, tuple[int, ...]]]) -> str:
    return listed([f"{name} ({', '.join(map(str, values))})" for name, values in labels], 10)
