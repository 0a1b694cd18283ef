"""Ensembles of probabilities that `predict --probabilities` left in several folders."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from autocrossdim.data.images import Geometry, read_label, same_place
from autocrossdim.inference.restore import to_label
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError


def stored_cases(folders: Sequence[Path]) -> list[str]:
    """Return the cases whose probabilities every one of the folders holds, by name.

    Raises:
        UserError: a folder has none, or not those that another has.
    """
    found = {folder: {file.stem for file in folder.glob("[!.]*.npz")} for folder in folders}
    everything = set[str]().union(*found.values())
    for folder, cases in found.items():
        if not cases:
            raise UserError(f"{folder}: no probabilities (CASE.npz). Segment with `predict --probabilities` first.")
        if missing := sorted(everything - cases):
            raise UserError(f"{folder}: no {missing[0]}.npz, which another folder has ({len(missing)} are missing).")
    return sorted(everything)


def average_stored(folders: Sequence[Path], case: str, labels: Labels, ending: str) -> tuple[np.ndarray, Geometry]:
    """Return the label values (Z, Y, X) that the mean of the folders' probabilities gives, and where they lie.

    Probabilities are kept as float16, so a voxel may differ from an ensemble in memory where two labels are equally
    probable to three digits. They are averaged as stored, calibrated where `find_best` had calibrated them.

    Raises:
        UserError: a file is missing or damaged, or of other labels or another grid than the first folder's.
    """
    _, geometry = read_label(folders[0] / f"{case}{ending}")
    for folder in folders[1:]:
        difference = same_place(geometry, read_label(folder / f"{case}{ending}")[1])
        if difference is not None:
            raise UserError(f"{folder / case}{ending}: not on the grid of {folders[0]}'s ({difference}).")
    stored = [_probabilities(folder / f"{case}.npz", (labels.num_outputs, *geometry.shape)) for folder in folders]
    label = np.empty(geometry.shape, dtype=np.min_scalar_type(labels.values[-1]))
    for z in range(len(label)):  # slice by slice, so that no second copy of all is made
        mean = torch.stack([torch.from_numpy(values[:, z].astype(np.float32)) for values in stored]).mean(dim=0)
        label[z] = to_label(mean, labels)
    return label, geometry


def _probabilities(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as content:
            values: np.ndarray = content["probabilities"]
    except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged, or not what `predict --probabilities` writes. Segment it again.") from error
    if values.shape != shape or not np.issubdtype(values.dtype, np.floating):
        found = " × ".join(map(str, values.shape))
        raise UserError(
            f"{path}: {found} probabilities, where the dataset's labels on this image's grid need "
            f"{' × '.join(map(str, shape))} (labels, z, y, x)."
        )
    return values
