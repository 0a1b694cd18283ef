"""Held-out cases, segmented by the fold that was not trained on them, with uncertainty and evidence for calibration."""

import math
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocrossdim.data.annotated_slices import read_annotation
from autocrossdim.data.images import write_label
from autocrossdim.inference.assembly import Assembly, average
from autocrossdim.inference.model import Model, strips_for
from autocrossdim.inference.residence import HELD_BYTES
from autocrossdim.inference.restore import places, segmented
from autocrossdim.inference.uncertainty import entropy, soft_dice_sums, temper
from autocrossdim.preprocessing.crop import crop
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.labels import Labels
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.selection.calibration import TEMPERATURES, VOXELS_PER_CASE, Evidence
from autocrossdim.system.errors import UserError

REACH = 5  # in-plane distance, in voxels, from the segmented region within which voxels are sampled

Names = tuple[str, ...]  # configurations that are averaged


def evidence_folder(folder: FoldFolder) -> Path:
    """Return the directory of the evidence. It is deleted with the validation when the fold is retrained."""
    return folder.validation / "calibration"


def evidence_file(folder: FoldFolder, case: str) -> Path:
    """Return the path of a held-out case's evidence."""
    return evidence_folder(folder) / f"{case}.npz"


def uncertainty_file(segmentation: Path) -> Path:
    """Return the path of the uncertainty map that belongs to the segmentation of a held-out case.

    The map has the grid and the format of the segmentation. Its values are the entropy of the probabilities in
    hundredths of a bit, up to 255; at 100, two labels are equally probable. The temperature is only known after all
    cases were segmented, so it is not applied.
    """
    return segmentation.parent / "uncertainty" / segmentation.name


def predicted_from(folder: FoldFolder, case: str, ending: str) -> str | None:
    """Return which version of a held-out case's files its results belong to; None if results are missing or damaged.

    Args:
        folder: Folder of the fold.
        case: Name of the case.
        ending: Ending of the segmentation's file.

    Returns:
        The digest of what they were computed from, as `source_of` returns it.
    """
    if not (folder.validation / f"{case}{ending}").exists():
        return None
    try:
        return Evidence.read(evidence_file(folder, case)).source
    except UserError:
        return None


def source_of(names: Names, hashes: Mapping[str, str]) -> str:
    """Return a digest of everything from which a candidate's result for a case is computed.

    Args:
        names: Configurations that are averaged.
        hashes: `Store.source_hash` of the case by configuration. That of a cascade differs from the others: it includes
            the segmentation by the previous stage.
    """
    return " ".join(dict.fromkeys(hashes[name] for name in names))


def predict_held_out(
    case: str, *, stores: Mapping[str, Store], models: Mapping[str, Model], folders: Mapping[Names, FoldFolder]
) -> None:
    """Segment one held-out case with every candidate, running each model once; current results are kept.

    Args:
        case: Name of the case.
        stores: Preprocessed cases by configuration.
        models: One fold of each configuration, by configuration.
        folders: Folder of each candidate's fold, by the configurations that are averaged.
    """
    configurations = sorted({name for names in folders for name in names})
    plan = models[configurations[0]].plan
    hashes = {name: stores[name].source_hash(case) for name in configurations}
    todo = {
        names: folder
        for names, folder in folders.items()
        if predicted_from(folder, case, plan.file_ending) != source_of(names, hashes)
    }
    configurations = [name for name in configurations if any(name in names for names in todo)]
    if not configurations:
        return
    records = {name: stores[name].record(case) for name in configurations}
    record = records[configurations[0]]
    reference, _ = read_annotation(Path(record.label_path), plan.labels)
    reference = crop(record.placement.change.apply(reference), record.placement.box)
    placements = [records[name].placement for name in configurations]
    # The voxels that are sampled for the calibration depend on the strips, so these must not depend on the device.
    used = [models[name] for name in configurations]
    strips = strips_for(used, placements, mirroring=True, room=HELD_BYTES)
    streams = [
        models[name].slices(
            stores[name].open(case).whole_input(), records[name].placement, mirroring=True, strips=strips
        )
        for name in configurations
    ]
    assemblies = {names: Assembly(plan.labels, record.placement) for names in todo}
    maps = {names: np.zeros(record.placement.cropped_shape, np.uint8) for names in todo}
    evidence = {names: EvidenceCollector(plan.labels, annotated=record.annotated_labels) for names in todo}
    for where, slices in zip(places(record.placement, strips), zip(*streams, strict=True), strict=True):
        by_model = dict(zip(configurations, slices, strict=True))
        for names in todo:
            values = average([by_model[name] for name in names])
            assemblies[names].add(where, values)
            maps[names][where] = _hundredths_of_bits(entropy(values, plan.labels))
            evidence[names].add(values, reference[where])
    for names, folder in todo.items():
        output = folder.validation / f"{case}{plan.file_ending}"
        geometry = record.original_geometry()
        write_label(record.placement.restore(maps[names]), geometry, uncertainty_file(output))
        write_label(assemblies[names].restored_label(), geometry, output)
        # The evidence is written last and marks the case as complete.
        result = replace(evidence[names].result(), source=source_of(names, hashes))
        result.write(evidence_file(folder, case))


class EvidenceCollector:
    """Collects what calibration needs from the slices of one case: a sample of voxels, and sums for soft Dice.

    Voxels are sampled uniformly from the segmented region and its in-plane surroundings of `REACH` voxels. The region
    depends on the prediction alone: selecting voxels by the reference would make any prediction look miscalibrated,
    and including all background would outweigh the voxels of interest.

    Labels that were not annotated in the case are left out: of exclusive labels, their probabilities are added to that
    of background, which is all that the reference can confirm; regions are left out altogether.

    Args:
        labels: Labels of the dataset.
        annotated: Names of the labels that were annotated in the case; None if all were.
    """

    def __init__(self, labels: Labels, *, annotated: Collection[str] | None = None) -> None:
        self.labels = labels
        self._unknown = np.array([annotated is not None and name not in annotated for name in labels.names])
        self._random = np.random.default_rng(0)
        self._keys = np.empty(0)
        self._values = np.empty((0, labels.num_outputs), np.float32)
        self._truth = np.empty(0, np.int32)
        self._sums = np.zeros((len(TEMPERATURES), 3, len(labels.foreground)))

    def add(self, values: Tensor, reference: NDArray[Any]) -> None:
        """Add the probabilities (K, Y, X) and reference label values (Y, X) of a slice."""
        found = segmented(values, self.labels)
        tempered = (temper(values, self.labels, temperature) for temperature in TEMPERATURES)
        sums = torch.stack([soft_dice_sums(each, self.labels, found=found) for each in tempered])
        self._sums += sums.cpu().numpy()
        near = (found.any(dim=0) if self.labels.has_regions else found > 0)[None, None].float()
        for window, reach in (((2 * REACH + 1, 1), (REACH, 0)), ((1, 2 * REACH + 1), (0, REACH))):
            near = torch.nn.functional.max_pool2d(near, window, 1, reach)  # in two steps, a third of the time
        near = near[0, 0] > 0
        candidates = np.flatnonzero(near.cpu().numpy() & ~self.labels.ignored(reference))
        # Keep the voxels with the smallest random keys: a uniform sample, however many voxels are still to come.
        keys = self._random.random(len(candidates))
        if len(self._keys) == VOXELS_PER_CASE:
            smaller = keys < self._keys.max()
            keys, candidates = keys[smaller], candidates[smaller]
        if not len(keys):
            return
        picked = values.flatten(1)[:, torch.from_numpy(candidates).to(values.device)].T.cpu().numpy()
        keys = np.concatenate([self._keys, keys])
        kept = np.argsort(keys, kind="stable")[:VOXELS_PER_CASE]
        self._keys = keys[kept]
        self._values = np.concatenate([self._values, picked])[kept]
        self._truth = np.concatenate([self._truth, reference.ravel()[candidates].astype(np.int32)])[kept]

    def result(self) -> Evidence:
        """Return the evidence of the slices added so far."""
        unknown, sums = self._unknown, self._sums * ~self._unknown  # a label without voxels has no soft Dice
        if not self.labels.has_regions:
            values = self._values.copy()
            values[:, 0] += values[:, 1:][:, unknown].sum(axis=1)
            values[:, 1:][:, unknown] = 0
            return Evidence(values, self.labels.to_index(self._truth), sums)
        inside = self._values[:, ~unknown].ravel()
        truth = self.labels.to_regions(self._truth)[~unknown].T.ravel()
        return Evidence(np.stack([1 - inside, inside], axis=1), truth, sums)


def _hundredths_of_bits(nats: Tensor) -> NDArray[np.uint8]:
    scaled: NDArray[np.uint8] = (nats * (100 / math.log(2))).round().clamp(0, 255).byte().cpu().numpy()
    return scaled
