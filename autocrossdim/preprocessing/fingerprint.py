"""Measurement of a dataset in one pass, which reads, checks and measures each case once.

The quantities are those of nnU-Net, except that voxels with the ignore label do not count as foreground.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import partial

import numpy as np
from skimage.measure import regionprops

from autocrossdim.data.annotated_slices import mark_unannotated
from autocrossdim.data.dataset import Case, Dataset
from autocrossdim.data.orientation import Reorientation
from autocrossdim.data.structure import check_structure
from autocrossdim.data.verify import CaseCheck, Report, check_case, findings, summarise
from autocrossdim.preprocessing.crop import box_shape, crop, nonzero_box
from autocrossdim.records.fingerprint import CaseFingerprint, Fingerprint, Intensities, LabelMeasurement
from autocrossdim.records.sources import FileVersion, content_hash, file_versions
from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import map_cases
from autocrossdim.system.text import counted

# Foreground intensities kept per channel for percentiles of the dataset: 40 MB. nnU-Net keeps ten times as many; a
# percentile of 1e7 values is exact to far more digits than are used.
MAX_SAMPLES = 10_000_000


@dataclass
class _Measured:
    check: CaseCheck
    case: CaseFingerprint | None
    samples: np.ndarray | None  # (C, samples) float32


def extract(dataset: Dataset, processes: int) -> tuple[Fingerprint, Report]:
    """Check and measure every training case.

    Args:
        dataset: Raw dataset.
        processes: Number of worker processes, each of which holds one case in memory.

    Returns:
        The fingerprint, and a report that holds warnings only.

    Raises:
        UserError: The dataset has faults; the message lists all of them, one per line.
    """
    structure = check_structure(dataset.path)
    cases = dataset.training_cases()
    measure = partial(_check_and_measure, dataset, MAX_SAMPLES // max(1, len(cases)))
    measured = map_cases(measure, cases, processes, "Reading cases")
    unlabelled = map_cases(
        partial(findings, dataset), dataset.unlabelled_cases(), processes, "Reading unlabelled scans"
    )
    report = summarise([structure, *(m.check for m in measured), *unlabelled])
    if report.faults:
        raise UserError(f"{dataset.path}: {counted(len(report.faults), 'problem')} found.\n" + "\n".join(report.faults))
    fingerprints = tuple(m.case for m in measured if m.case is not None)
    samples = [m.samples for m in measured if m.samples is not None and m.samples.size]
    # Every case has the same weight, as in nnU-Net, however large its structures are.
    weights = np.concatenate([np.full(each.shape[1], 1 / each.shape[1] / len(samples)) for each in samples])
    return (
        Fingerprint(
            dims=2 if all(case.shape[0] == 1 for case in fingerprints) else 3,
            cases=fingerprints,
            intensities=tuple(_intensities(channel, weights) for channel in np.concatenate(samples, axis=1)),
        ),
        report,
    )


def changed_cases(dataset: Dataset, fingerprint: Fingerprint) -> list[str]:
    """Return the training cases whose image or label files changed since they were measured, sorted by name.

    Cases that were added or removed are not listed. Files whose size and time are as recorded are not read.

    Raises:
        UserError: A file is missing or cannot be read.
    """
    known = {case.name: case.source for case in fingerprint.cases}
    return [
        case.name
        for case in dataset.training_cases()
        if (source := known.get(case.name)) is not None
        and (not source or content_hash(file_versions(case.source_files, source)) != content_hash(source))
    ]


def _check_and_measure(dataset: Dataset, max_samples: int, case: Case) -> _Measured:
    source = _source(case)
    check = check_case(dataset, case)
    image, label = check.image, check.label
    check.image = check.label = None  # so that arrays are not sent between processes
    if check.faults or image is None or label is None:
        return _Measured(check, None, None)
    box = nonzero_box(image.array)
    label = mark_unannotated(label, image.geometry, dataset.labels)
    values, counts = np.unique(label, return_counts=True)
    declared = set(dataset.labels.values)
    scale = image.array.std(axis=(1, 2, 3), dtype=np.float64)
    fingerprint = CaseFingerprint(
        name=case.name,
        shape=image.geometry.shape,
        cropped_shape=box_shape(box),
        spacing=image.geometry.spacing,
        orientation=image.geometry.orientation,
        label_voxels={int(v): int(n) for v, n in zip(values, counts, strict=True) if int(v) in declared},
        labels=_measure_labels(image.array, label, scale, dataset.labels.unannotated),
        source=source,
        annotated_slices=(len(check.labelled), check.slices) if dataset.labels.unannotated_slices else None,
        intensity_std=tuple(scale),
    )
    cropped = crop(label, box)
    foreground = np.isin(cropped, [v for values in dataset.labels.foreground.values() for v in values])
    samples = crop(image.array, box)[:, foreground]
    if samples.shape[1] > max_samples:
        chosen = np.random.default_rng(1234).choice(samples.shape[1], max_samples, replace=False)
        samples = samples[:, chosen]
    return _Measured(check, fingerprint, samples)


def common_orientation(fingerprint: Fingerprint) -> str | None:
    """Return the most frequent known orientation of the cases; None if none is known."""
    known = Counter(case.orientation for case in fingerprint.cases if case.orientation is not None)
    return known.most_common(1)[0][0] if known else None


def reoriented(fingerprint: Fingerprint, orientation: str | None) -> Fingerprint:
    """Return the fingerprint as it would be if every image of known orientation had been stored in the given one."""
    return fingerprint.model_copy(update={"cases": tuple(_turned(case, orientation) for case in fingerprint.cases)})


def _turned(case: CaseFingerprint, orientation: str | None) -> CaseFingerprint:
    change = Reorientation.between(case.orientation, orientation)
    shape = change.permuted(case.shape)

    def moved(measured: LabelMeasurement) -> LabelMeasurement:
        centroid = change.permuted(measured.centroid)
        z, y, x = (n - 1 - c if flip else c for n, c, flip in zip(shape, centroid, change.flipped, strict=True))
        return measured.model_copy(update={"centroid": (z, y, x)})

    return case.model_copy(
        update={
            "shape": shape,
            "cropped_shape": change.permuted(case.cropped_shape),
            "spacing": change.permuted(case.spacing),
            "orientation": case.orientation if orientation is None else orientation,
            "labels": {value: moved(measured) for value, measured in case.labels.items()},
        }
    )


def _measure_labels(
    image: np.ndarray, label: np.ndarray, scale: np.ndarray, ignore: int | None
) -> dict[int, LabelMeasurement]:
    """Measure position and intensities of each label value.

    Args:
        image: Shape (C, Z, Y, X).
        label: Label values, shape (Z, Y, X).
        scale: Standard deviation of each channel, shape (C,).
        ignore: Label value that is left out.
    """
    regions = regionprops(label.astype(np.int32), np.moveaxis(image, 0, -1))
    return {
        int(region.label): LabelMeasurement(
            centroid=tuple(region.centroid),
            mean=tuple(np.atleast_1d(region.intensity_mean) / np.maximum(scale, 1e-12)),
            std=tuple(np.atleast_1d(region.intensity_std) / np.maximum(scale, 1e-12)),
        )
        for region in regions
        if region.label != ignore
    }


def _source(case: Case) -> tuple[FileVersion, ...]:
    """Return the versions of a case's files; empty if one is missing, which the check of the case reports."""
    try:
        return file_versions(case.source_files)
    except UserError:
        return ()


def _intensities(samples: np.ndarray, weights: np.ndarray) -> Intensities:
    """Return weighted statistics of the foreground samples of one channel.

    Args:
        samples: Intensities, shape (n,), n > 0.
        weights: Their weights, which sum to 1, shape (n,).
    """
    order = np.argsort(samples)
    share = np.cumsum(weights[order])  # of the samples up to each one
    low, median, high = samples[order[np.searchsorted(share, np.array([0.005, 0.5, 0.995]) * share[-1])]]
    mean = float(weights @ samples)
    return Intensities(
        mean=mean,
        median=float(median),
        std=math.sqrt(weights @ np.square(np.subtract(samples, mean, dtype=np.float64))),
        min=float(samples.min()),
        max=float(samples.max()),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )
