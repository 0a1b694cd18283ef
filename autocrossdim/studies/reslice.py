"""A dataset with thicker slices: what a scanner with a larger slice spacing would have recorded."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autocrossdim.data.dataset import Dataset, load_dataset
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import read_image, read_label, write_image, write_label
from autocrossdim.data.orientation import Reorientation
from autocrossdim.studies.datasets import described_by
from autocrossdim.system.console import track
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json
from autocrossdim.system.text import counted

SOURCES = "sources.json"  # what a dataset was made from


def reslice_dataset(dataset: Dataset, folder: Path, number: int, digests: Mapping[str, str]) -> Dataset:
    """Write a dataset in which every `number` neighbouring slices are averaged into one, or return the existing one.

    Slices are averaged along the coarsest axis of the first case (the first axis of the array, if all are equal), and
    along the same axis of the patient in cases that are stored in another orientation.

    Args:
        dataset: The original dataset.
        folder: Directory in which to write it, under the same name.
        number: Number of slices.
        digests: Digest of the files of each case. The existing dataset is kept only if it was made from these files
            and dataset.json says the same about them.

    Raises:
        UserError: Only some slices are annotated.
    """
    if number == 1:
        return dataset
    if dataset.labels.unannotated_slices is not None:
        raise UserError(f"{dataset.path}: only some slices are annotated, so slices cannot be averaged.")
    path, cases = folder / dataset.name, dataset.training_cases()
    made_from = {"files": dict(digests), "keys of dataset.json": described_by(dataset, digests)}
    if (path / SOURCES).exists() and read_json(path / SOURCES) == made_from:
        return load_dataset(path)
    (path / SOURCES).unlink(missing_ok=True)
    orientation, coarsest, files = None, 0, {}
    for index, case in enumerate(track(cases, f"Averaging {counted(number, 'slice')}", len(cases))):
        assert case.label is not None
        image, (label, geometry) = read_image(case.images), read_label(case.label)
        if index == 0:
            orientation, coarsest = image.geometry.orientation, int(np.argmax(image.geometry.spacing))
        axis = Reorientation.between(image.geometry.orientation, orientation).order[coarsest]
        thick = thicker(image.geometry, axis, number)
        images = [f"imagesTr/{case.name}_{channel:04d}{dataset.file_ending}" for channel in range(len(image.array))]
        for file, channel in zip(images, image.array, strict=True):
            write_image(average_slices(channel, axis, number), thick, path / file)
        target = f"labelsTr/{case.name}{dataset.file_ending}"
        write_label(merge_slices(label, axis, number), thicker(geometry, axis, number), path / target)
        files[case.name] = {"images": images, "label": target}
    write_json(path / "dataset.json", {**dataset.description, "dataset": files, "numTraining": len(files)})
    write_json(path / SOURCES, made_from)
    return load_dataset(path)


def average_slices(image: NDArray[Any], axis: int, number: int) -> NDArray[np.float32]:
    """Return the means of blocks of `number` slices, (Z, Y, X); the last slice is repeated to fill the last block."""
    mean: NDArray[np.float32] = _blocks(image, axis, number).mean(axis=axis + 1, dtype=np.float64).astype(np.float32)
    return mean


def merge_slices(label: NDArray[Any], axis: int, number: int) -> NDArray[Any]:
    """Return the most frequent label value of each voxel of a block of slices, (Z, Y, X).

    If several values are equally frequent, that of the block's first slice wins, else the smallest. A structure then
    loses at one end what it gains at the other; if the background always won, it would shrink.
    """
    blocks = _blocks(label, axis, number)
    values = np.unique(label)
    first = blocks.take(0, axis=axis + 1)
    votes = np.stack([(blocks == value).sum(axis=axis + 1) + 0.5 * (first == value) for value in values])
    merged: NDArray[Any] = values[votes.argmax(axis=0)]
    return merged


def thicker(geometry: Geometry, axis: int, number: int) -> Geometry:
    """Return the geometry of slices that are `number` times as thick, whose first one is centred in its block."""
    shape, spacing, itk = list(geometry.shape), list(geometry.spacing), 2 - axis
    direction = np.array(geometry.direction).reshape(3, 3)[:, itk]
    origin = np.array(geometry.origin) + direction * spacing[axis] * (number - 1) / 2
    shape[axis] = -(-shape[axis] // number)
    spacing[axis] *= number
    return replace(
        geometry,
        shape=(shape[0], shape[1], shape[2]),
        spacing=(spacing[0], spacing[1], spacing[2]),
        origin=tuple(float(value) for value in origin),
        header=None,
        pixel_type=None,
    )


def _blocks(array: NDArray[Any], axis: int, number: int) -> NDArray[Any]:
    """Return blocks of slices, with the slices of a block along a new axis after `axis`."""
    width = [(0, 0)] * 3
    width[axis] = (0, -array.shape[axis] % number)
    padded = np.pad(array, width, mode="edge")
    return padded.reshape(*padded.shape[:axis], -1, number, *padded.shape[axis + 1 :])
