"""The scores of the BraTS challenge: Dice and HD95 of three regions, per case and (since 2023) per lesion.

Source: https://github.com/rachitsaluja/BraTS-2023-Metrics, with the parameters of the glioma task (BraTS-GLI).

Per case: in neither segmentation, Dice 1 and HD95 0 mm; in one of them, Dice 0 and HD95 374 mm (the diagonal of BraTS
images, rounded up).

Per lesion: the reference is dilated by three voxels (18 neighbours), and its voxels in one 26-connected component of
the dilated mask are a lesion. A predicted component (26-connected) belongs to every lesion whose dilation it touches.
Dice and HD95 of a lesion compare it with all its predicted components; a missed lesion has Dice 0 and HD95 374 mm.
Lesions of at most 50 mm3 are not counted. A predicted component that touches no lesion, counted or not, is a false
positive with Dice 0 and HD95 374 mm. The score of a case is the mean over counted lesions and false positives; Dice 1
and HD95 0 mm if there are none.

One deviation: the organisers take HD95 over surface elements weighted by their area, and we over surface voxels, as
everywhere in this package.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np
from scipy import ndimage
from skimage.measure import label as connected_components

from autocrossdim.evaluation.metrics import Mask
from autocrossdim.evaluation.registry import Case, Structures, score
from autocrossdim.evaluation.scores.masks import dice, hd95, mean_rows
from autocrossdim.records.labels import Labels
from autocrossdim.records.score import Rows, Score, ScoreTable, Values
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import listed

REGIONS = {
    "WT": {"wt", "whole", "wholetumor", "wholetumour"},
    "TC": {"tc", "core", "tumorcore", "tumourcore"},
    "ET": {"et", "enhancing", "enhancingtumor", "enhancingtumour"},
}
"""Names in dataset.json of each region, in lower case and without anything but letters."""

PENALTY_MM = 374.0
DILATION = 3
SMALLEST_MM3 = 50.0

COUNTS = ("found", "missed", "false")


def regions(labels: Labels) -> Structures:
    """Return the label values of the whole tumour (WT), tumour core (TC) and enhancing tumour (ET).

    Raises:
        UserError: One of the regions is not declared.
    """
    named = {re.sub(r"[^a-z]", "", name.lower()): values for name, values in labels.foreground.items()}
    found = {region: values for region, names in REGIONS.items() for name, values in named.items() if name in names}
    if missing := [region for region in REGIONS if region not in found]:
        raise UserError(
            f"--score brats: no region is named as {listed(missing)}; the labels are {listed(labels.names)}. Pass "
            "--dataset with a dataset.json that declares 'whole tumour' (WT), 'tumour core' (TC) and 'enhancing "
            "tumour' (ET)."
        )
    return found


def report(cases: Mapping[str, Rows]) -> Score:
    """Return the means over cases and the numbers of lesions per region."""
    rows = mean_rows(cases)
    for name, values in rows.items():
        values.update({count: sum(case[name][count] for case in cases.values()) for count in COUNTS})
    return Score(
        name="brats",
        tables=(ScoreTable(title="BraTS: means over cases, and numbers of lesions", rows=rows),),
        notes=(
            f"Lesion-wise values are BraTS 2023's for gliomas: lesions of at most {SMALLEST_MM3:g} mm3 are not "
            f"counted; missed and false ones have Dice 0 and HD95 {PENALTY_MM:g} mm.",
        ),
        cases=dict(cases),
    )


@score("brats", report, structures=regions, counts_lesions=True)
def measure(case: Case) -> Rows:
    """Return the values of each region."""
    return {
        name: {
            **_whole(predicted, expected, case.spacing),
            **lesion_wise(predicted, expected, case.spacing),
        }
        for name, predicted, expected in case.masks()
    }


def lesion_wise(prediction: Mask, reference: Mask, spacing: tuple[float, ...]) -> Values:
    """Return the lesion-wise scores of one region and the numbers of lesions found, missed and falsely predicted."""
    components = connected_components(prediction, connectivity=prediction.ndim)
    voxel = float(np.prod(spacing))
    values, touched_any, found = [], set[int](), 0
    for lesion, near in _lesions(reference):
        touched = set(np.unique(components[near]).tolist()) - {0}
        touched_any |= touched
        if np.count_nonzero(lesion) * voxel <= SMALLEST_MM3:
            continue
        found += bool(touched)
        values.append(_compared(np.isin(components, list(touched)), lesion, spacing) if touched else (0.0, PENALTY_MM))
    missed, false = len(values) - found, int(components.max()) - len(touched_any)
    values += [(0.0, PENALTY_MM)] * false
    mean_dice, mean_hd95 = np.mean(values, axis=0) if values else (1.0, 0.0)
    return {
        "lesion Dice": float(mean_dice),
        "lesion HD95 (mm)": float(mean_hd95),
        "found": found,
        "missed": missed,
        "false": false,
    }


def _lesions(reference: Mask) -> Iterator[tuple[Mask, Mask]]:
    """Yield the mask of each lesion, and of the lesion after dilation."""
    if not reference.any():
        return
    neighbours = ndimage.generate_binary_structure(reference.ndim, min(2, reference.ndim))
    dilated = connected_components(
        ndimage.binary_dilation(reference, neighbours, iterations=DILATION), connectivity=reference.ndim
    )
    for number in range(1, int(dilated.max()) + 1):
        near = dilated == number
        yield reference & near, near


def _whole(prediction: Mask, reference: Mask, spacing: tuple[float, ...]) -> Values:
    if not prediction.any() and not reference.any():
        return {"Dice": 1.0, "HD95 (mm)": 0.0}
    if not prediction.any() or not reference.any():
        return {"Dice": 0.0, "HD95 (mm)": PENALTY_MM}
    overlap, distance = _compared(prediction, reference, spacing)
    return {"Dice": overlap, "HD95 (mm)": distance}


def _compared(prediction: Mask, reference: Mask, spacing: tuple[float, ...]) -> tuple[float, float]:
    return dice(prediction, reference), hd95(prediction, reference, spacing)
