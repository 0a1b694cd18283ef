"""The cases that the report shows: as pictures, and in the viewer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autocrossdim.data.dataset import Dataset
from autocrossdim.records.plan import Plan
from autocrossdim.report.formats import number
from autocrossdim.report.pictures import case_picture, thumbnail
from autocrossdim.report.rows import Row, described
from autocrossdim.report.scans import Scan, read_scan
from autocrossdim.report.viewer import ct_limits, shared, single_slice, volume
from autocrossdim.selection.held_out import uncertainty_file
from autocrossdim.system.console import track

WORST, LISTED = 3, 100  # cases drawn and cases listed, starting with the lowest Dice
WORST_VOLUMES, VOLUMES = 6, 10  # cases of which the viewer has all slices: the worst ones, and altogether


@dataclass(frozen=True)
class Picture:
    """A case drawn as PNG, and why it was selected.

    Attributes:
        row: The case.
        why: Why it was selected.
        slice: Slice that is drawn, in words.
        png: The picture.
    """

    row: Row
    why: str
    slice: str
    png: bytes


@dataclass(frozen=True)
class Thumbnail:
    """A case drawn as a small WebP."""

    row: Row
    webp: bytes


@dataclass(frozen=True)
class Drawn:
    """The cases that are shown.

    Attributes:
        pictures: A few cases as PNG.
        thumbnails: The other cases that are listed, the lowest Dice first.
        viewer: What the cases of the viewer have in common.
        cases: The cases of the viewer.
        missing: Names of cases that could not be drawn because a file is missing.
    """

    pictures: Sequence[Picture]
    thumbnails: Sequence[Thumbnail]
    viewer: Mapping[str, Any]
    cases: Sequence[Mapping[str, Any]]
    missing: Sequence[str]


def draw_cases(
    dataset: Dataset, plan: Plan, segmentations: Mapping[str, Path], rows: Sequence[Row], unit: str
) -> Drawn:
    """Draw the cases: a few as pictures, the others as thumbnails; some with all slices in the viewer, others with one.

    Args:
        dataset: The raw dataset.
        plan: Its plan.
        segmentations: File with the segmentation of each case; its uncertainty map is shown if there is one.
        rows: Cases, the lowest Dice first.
        unit: Unit of distances.
    """
    pictured, volumes = chosen(rows, WORST), chosen(rows, WORST_VOLUMES, at_least=VOLUMES)
    cases = {case.name: case for case in dataset.training_cases()}
    ct = plan.normalization[0].scheme == "ct"
    pictures, thumbnails, views, missing = [], [], {}, []
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
        window = ct_limits(scan) if ct else None
        if row.name in pictured:
            png = case_picture(scan, labels, window=window)
            pictures.append(Picture(row, pictured[row.name], slice_in_words(scan), png))
        else:
            thumbnails.append(Thumbnail(row, thumbnail(scan, labels, window=window)))
        view = volume if row.name in volumes else single_slice
        why = f"{volumes[row.name]}: " if volumes.get(row.name) else ""
        views[row.name] = {
            "name": row.name,
            "title": f"{why}{row.name} (Dice {number(row.dice)})",
            "text": described(row, unit),
            **view(scan, plan.labels, ct=ct),
        }
    order = [name for name in volumes if name in views] + [name for name in views if name not in volumes]
    return Drawn(
        pictures=sorted(pictures, key=lambda picture: list(pictured).index(picture.row.name)),
        thumbnails=thumbnails,
        viewer=shared(plan.labels, ct=ct),
        cases=[views[name] for name in order],
        missing=missing,
    )


def slice_in_words(scan: Scan) -> str:
    """Return the name and the number of the slice that is drawn."""
    plane = scan.acquired()
    if scan.shape[plane.axis] == 1:
        return "image"
    return f"{plane.name} slice {scan.fullest(plane.axis) + 1} of {scan.shape[plane.axis]}"


def chosen(rows: Sequence[Row], worst: int, *, at_least: int = 0) -> dict[str, str]:
    """Return cases to look at, and why: those with the lowest Dice, one per group, the median and the highest.

    Args:
        rows: Cases, the lowest Dice first.
        worst: Number of groups with the lowest Dice.
        at_least: Number of cases, as far as there are any; further ones follow, without a reason.
    """
    known = [row for row in rows if math.isfinite(row.dice)]
    lowest: dict[str, Row] = {}
    for row in known:
        lowest.setdefault(f"case {row.name}" if row.group is None else f"group {row.group}", row)
    found = {row.name: "next lowest" for row in list(lowest.values())[:worst]}
    if known:
        found[known[len(known) // 2].name] = "median"
        found[known[-1].name] = "highest Dice"
        found[known[0].name] = "lowest Dice"
    for row in rows[:at_least]:
        if len(found) < at_least:
            found.setdefault(row.name, "")
    return found
