"""Positions of labelled voxels, around which training patches are centred without searching the label map."""

from pathlib import Path
from zipfile import ZipFile

import numpy as np

from autocrossdim.records.labels import Labels
from autocrossdim.system.files import written_whole

VOXELS_PER_CLASS = 10_000  # positions stored per class (nnU-Net)
ANNOTATED = "ignore"  # voxels without the ignore label, where some have it; no class can have this name


def write_positions(path: Path, label: np.ndarray, labels: Labels) -> None:
    """Write positions of the voxels of each class or region, and of `ANNOTATED` ones, to `path` (.npz).

    Args:
        path: File to write.
        label: Label values, shape (Z, Y, X).
        labels: Labels of the dataset.
    """
    # Not by `np.savez`, which takes a label called `file` for its own argument.
    with written_whole(path) as temporary, ZipFile(temporary, "w") as archive:
        for name, positions in _positions(label, labels).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, positions, allow_pickle=False)


def read_positions(path: Path) -> dict[str, np.ndarray]:
    """Return positions (n, 3) in voxels by name of the class or region, or `ANNOTATED`; absent ones are left out.

    Raises:
        OSError, ValueError, EOFError, BadZipFile: The file is missing or damaged.
    """
    with np.load(path, allow_pickle=False) as positions:
        return {name: positions[name] for name in positions.files}


def _positions(label: np.ndarray, labels: Labels) -> dict[str, np.ndarray]:
    """Return positions (n, 3) of each class or region present, at most `VOXELS_PER_CLASS` drawn at random."""
    random = np.random.default_rng(1234)
    wanted = dict(labels.foreground)
    if labels.ignore is not None and (label == labels.ignore).any():
        wanted[ANNOTATED] = tuple(value for value in labels.values if value != labels.ignore)
    positions = {}
    for name, values in wanted.items():
        found = np.flatnonzero(np.isin(label, values))
        if len(found) > VOXELS_PER_CLASS:
            found = found[random.choice(len(found), VOXELS_PER_CLASS, replace=False)]
        if len(found):
            positions[name] = np.stack(np.unravel_index(found, label.shape), axis=1).astype(np.int32)
    return positions
