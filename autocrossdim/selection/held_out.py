"""Held-out cases: segmented by the fold that never saw them, with what is needed to calibrate probabilities."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocrossdim.data.images import read_label, write_label
from autocrossdim.inference.assembly import Assembly, average
from autocrossdim.inference.model import Model
from autocrossdim.inference.restore import places
from autocrossdim.inference.uncertainty import soft_dice_sums, temper
from autocrossdim.preprocessing.crop import crop
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.labels import Labels
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.selection.calibration import TEMPERATURES, VOXELS_PER_CASE, Evidence

REACH = 5  # voxels around what is segmented, in its slice, in which voxels are sampled

Names = tuple[str, ...]  # of the configurations that are averaged


def evidence_file(folder: FoldFolder, case: str) -> Path:
    """Return where the evidence of a held-out case lies: it goes when the fold is trained further."""
    return folder.validation / "calibration" / f"{case}.npz"


def is_predicted(folder: FoldFolder, case: str, ending: str) -> bool:
    """Whether a held-out case's segmentation and evidence are there."""
    return (folder.validation / f"{case}{ending}").exists() and evidence_file(folder, case).exists()


def predict_held_out(
    case: str, stores: Mapping[str, Store], models: Mapping[str, Model], folders: Mapping[Names, FoldFolder]
) -> None:
    """Segment one held-out case with every candidate from one run of each model; what is there already is kept.

    Args:
        case: its name.
        stores: preprocessed cases, by configuration.
        models: one fold of each configuration.
        folders: where the fold of each candidate lies, by the configurations that are averaged.
    """
    configurations = sorted({name for names in folders for name in names})
    plan = models[configurations[0]].plan
    todo = {names: folder for names, folder in folders.items() if not is_predicted(folder, case, plan.file_ending)}
    configurations = [name for name in configurations if any(name in names for names in todo)]
    if not configurations:
        return
    records = {name: stores[name].record(case) for name in configurations}
    record = records[configurations[0]]
    reference, _ = read_label(Path(record.label_path))
    reference = crop(reference.transpose(record.placement.transpose), record.placement.box)
    strips = max(models[name].strips(records[name].placement, mirroring=True) for name in configurations)
    streams = [
        models[name].slices(stores[name].open(case).image[:], records[name].placement, mirroring=True, strips=strips)
        for name in configurations
    ]
    assemblies = {names: Assembly(plan.labels, record.placement) for names in todo}
    evidence = {names: EvidenceCollector(plan.labels) for names in todo}
    for where, slices in zip(places(record.placement, strips), zip(*streams, strict=True), strict=True):
        of_model = dict(zip(configurations, slices, strict=True))
        for names in todo:
            values = average([of_model[name] for name in names])
            assemblies[names].add(where, values)
            evidence[names].add(values, reference[where])
    for names, folder in todo.items():
        output = folder.validation / f"{case}{plan.file_ending}"
        if not output.exists():
            write_label(assemblies[names].restored_label(), record.original_geometry(), output)
        evidence[names].result().write(evidence_file(folder, case))


class EvidenceCollector:
    """Gathers from the slices of one case what calibration needs: a few voxels, and sums.

    Voxels are drawn with equal chance from what is segmented and `REACH` voxels around it in its slice. That depends
    on the prediction alone: choosing by the truth would make any prediction look badly calibrated, and all of the
    background would drown what matters.
    """

    def __init__(self, labels: Labels, voxels: int = VOXELS_PER_CASE) -> None:
        self.labels, self.voxels = labels, voxels
        self._random = np.random.default_rng(0)
        self._keys = np.empty(0)
        self._values = np.empty((0, labels.num_outputs), np.float32)
        self._truth = np.empty(0, np.int32)
        self._sums = np.zeros((len(TEMPERATURES), 3, len(labels.foreground)))

    def add(self, values: Tensor, reference: NDArray[Any]) -> None:
        """Add probabilities (K, Y, X) and the true label values (Y, X) of a slice."""
        self._sums += np.stack(
            [soft_dice_sums(temper(values, self.labels, temperature), self.labels) for temperature in TEMPERATURES]
        )
        segmented = (values > 0.5).any(dim=0) if self.labels.has_regions else values.argmax(dim=0) > 0
        near = torch.nn.functional.max_pool2d(segmented[None, None].float(), 2 * REACH + 1, 1, REACH)[0, 0] > 0
        candidates = np.flatnonzero(near.cpu().numpy() & ~self.labels.ignored(reference))
        # The voxels with the smallest of random keys: an equal chance for all, however many there will be.
        keys = self._random.random(len(candidates))
        if len(self._keys) == self.voxels:
            smaller = keys < self._keys.max()
            keys, candidates = keys[smaller], candidates[smaller]
        if not len(keys):
            return
        picked = values.flatten(1)[:, torch.from_numpy(candidates).to(values.device)].T.cpu().numpy()
        keys = np.concatenate([self._keys, keys])
        kept = np.argsort(keys, kind="stable")[: self.voxels]
        self._keys = keys[kept]
        self._values = np.concatenate([self._values, picked])[kept]
        self._truth = np.concatenate([self._truth, reference.ravel()[candidates].astype(np.int32)])[kept]

    def result(self) -> Evidence:
        """Return what was gathered."""
        if not self.labels.has_regions:
            return Evidence(self._values, self.labels.to_index(self._truth), self._sums)
        inside = self._values.ravel()
        return Evidence(
            np.stack([1 - inside, inside], axis=1), self.labels.to_regions(self._truth).T.ravel(), self._sums
        )
