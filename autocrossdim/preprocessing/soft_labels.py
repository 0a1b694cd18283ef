"""Soft labels: the probabilities that teachers assign to the voxels of a case, on the grid of the network to teach."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import blosc2
import numpy as np

from autocrossdim.preprocessing.arrays import open_array, write_array
from autocrossdim.preprocessing.case import Placement
from autocrossdim.preprocessing.crop import crop
from autocrossdim.preprocessing.positions import read_positions, write_positions
from autocrossdim.preprocessing.resample import resample_image
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError

CERTAIN = 255  # stored value of the probability 1


@dataclass(frozen=True)
class SoftLabels:
    """Soft labels of the cases that a fold learns from.

    Attributes:
        files: Name of a case -> its file. The array in it is (F, Z, Y, X), uint8: the probability of each foreground
            class, or of each region, times 255. Background has the rest. A file beside it (.npz) holds positions of
            the voxels where each class is the most probable one.
        teachers: Digest of the networks and the temperature that they come from.
    """

    files: Mapping[str, Path]
    teachers: str

    def open(self, name: str) -> blosc2.NDArray:
        """Open the soft labels of a case; slicing reads only the blocks of the slice.

        Raises:
            UserError: The file is missing or damaged.
        """
        path = self.files[name]
        try:
            return open_array(path)
        except (OSError, RuntimeError, ValueError) as error:  # raised by damaged files
            raise _damaged(path) from error

    def voxels(self, name: str) -> dict[str, np.ndarray]:
        """Return positions of each class that the teachers see in a case, as `StoredCase.voxels`.

        Raises:
            UserError: The file is missing or damaged.
        """
        path = self.files[name]
        try:
            return read_positions(path.with_suffix(".npz"))
        except (OSError, ValueError, EOFError, BadZipFile) as error:  # raised by damaged files
            raise _damaged(path) from error


def _damaged(path: Path) -> UserError:
    return UserError(f"{path}: missing or damaged. Delete it and run the same command again.")


def write_soft_labels(
    path: Path, probabilities: np.ndarray, labels: Labels, placement: Placement, patch: tuple[int, ...]
) -> None:
    """Resample the probabilities of a case to the grid of its preprocessed image, and store them.

    Args:
        path: File to write.
        probabilities: Probabilities of all outputs on the original grid, shape (K, Z, Y, X).
        labels: Labels of the dataset.
        placement: Position of the preprocessed image in the original grid.
        patch: Patch size (Z, Y, X), which determines the size of the compressed chunks.
    """
    foreground = probabilities if labels.has_regions else probabilities[1:]
    cropped = np.stack([crop(placement.change.apply(values), placement.box) for values in foreground])
    resampled = resample_image(cropped.astype(np.float32), placement.shape, placement.orders(1))
    chunk = tuple(min(n, p) for n, p in zip(placement.shape, patch, strict=True))
    soft = np.rint(resampled * CERTAIN).astype(np.uint8)
    label = np.stack([_most_probable(soft[:, z], labels) for z in range(soft.shape[1])])
    write_positions(path.with_suffix(".npz"), label, labels)
    write_array(path, soft, (1, *chunk))  # last: it marks the case as complete


def _most_probable(soft: np.ndarray, labels: Labels) -> np.ndarray:
    """Return the label values (Y, X) of a slice of soft labels (F, Y, X)."""
    if labels.has_regions:
        return labels.from_regions(soft > CERTAIN // 2)
    values = soft.astype(np.int32)
    return labels.from_index(np.concatenate([CERTAIN - values.sum(axis=0, keepdims=True), values]).argmax(axis=0))
