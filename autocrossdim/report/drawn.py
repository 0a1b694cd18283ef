"""The cases that the report shows: as pictures, and in the viewer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocrossdim.data.dataset import Dataset
from autocrossdim.records.plan import Plan
from autocrossdim.report.formats import number
from autocrossdim.report.pictures import case_picture
from autocrossdim.report.rows import Row, described
from autocrossdim.report.scans import read_scan
from autocrossdim.report.viewer import ct_limits, shared, single_slice, volume
from autocrossdim.selection.held_out import uncertainty_file
from autocrossdim.system.console import track

WORST, LISTED = 3, 100  # cases drawn and cases listed, starting with the lowest Dice
WORST_VOLUMES = 6  # cases of which the viewer has all slices, besides the median and the highest Dice


@dataclass(frozen=True)
class Picture:
    """A case drawn as PNG, and why it was selected."""

    row: Row
    why: str
    png: bytes


@dataclass(frozen=True)
class Drawn:
    """The cases that are shown.

    Attributes:
        pictures: A few cases as PNG.
        viewer: What the cases of the viewer have in common.
        cases: The cases of the viewer.
        missing: Names of cases that could not be drawn because a file is missing.
    """

    pictures: Sequence[Picture]
    viewer: Mapping[str, Any]
    cases: Sequence[Mapping[str, Any]]
    missing: Sequence[str]


def draw_cases(
    dataset: Dataset, plan: Plan, segmentations: Mapping[str, Path], rows: Sequence[Row], unit: str
) -> Drawn:
    """Draw the cases: a few as pictures, more with all slices in the viewer, and one slice of the others.

    Args:
        dataset: The raw dataset.
        plan: Its plan.
        segmentations: File with the segmentation of each case; its uncertainty map is shown if there is one.
        rows: Cases, the lowest Dice first.
        unit: Unit of distances.
    """
    pictured, volumes = chosen(rows, WORST), chosen(rows, WORST_VOLUMES)
    cases = {case.name: case for case in dataset.training_cases()}
    ct = plan.normalization[0].scheme == "ct"
    pictures, views, missing = [], {}, []
    shown = [row for number, row in enumerate(rows) if number < LISTED or row.name in volumes]
    for row in track(shown, "Drawing cases", len(shown)):
        case, prediction = cases.get(row.name), segmentations.get(row.name, Path())
        if case is None or case.label is None or not all(map(Path.is_file, (*case.images, case.label, prediction))):
            missing.append(row.name)
            continue
        labels = plan.labels if case.annotated_labels is None else plan.labels.only(case.annotated_labels)
        unmatched = (*row.missed, *row.false_alarms)
        uncertainty = found if (found := uncertainty_file(prediction)).is_file() else None
        scan = read_scan(case.images, case.label, prediction, labels, unmatched=unmatched, uncertainty=uncertainty)
        if row.name in pictured:
            window = ct_limits(scan) if ct else None
            pictures.append(Picture(row, pictured[row.name], case_picture(scan, labels, window=window)))
        view = volume if row.name in volumes else single_slice
        why = f"{volumes[row.name]}: " if row.name in volumes else ""
        views[row.name] = {
            "name": row.name,
            "title": f"{why}{row.name} (Dice {number(row.dice)})",
            "text": described(row, unit),
            **view(scan, plan.labels, ct=ct),
        }
    order = [name for name in volumes if name in views] + [name for name in views if name not in volumes]
    return Drawn(
        pictures=sorted(pictures, key=lambda picture: list(pictured).index(picture.row.name)),
        viewer=shared(plan.labels, ct=ct),
        cases=[views[name] for name in order],
        missing=missing,
    )


def chosen(rows: Sequence[Row], worst: int) -> dict[str, str]:
    """Return cases to look at, and why: those with the lowest Dice, one per group, the median and the highest."""
    known = [row for row in rows if math.isfinite(row.dice)]
    lowest: dict[str, Row] = {}
    for row in known:
        lowest.setdefault(f"case {row.name}" if row.group is None else f"group {row.group}", row)
    found = {row.name: "next lowest" for row in list(lowest.values())[:worst]}
    if known:
        found[known[0].name] = "lowest Dice"
        if len(known) > 2 * worst:
            found.setdefault(known[len(known) // 2].name, "median")
        found.setdefault(known[-1].name, "highest Dice")
    return found
