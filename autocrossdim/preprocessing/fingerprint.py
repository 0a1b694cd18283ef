"""Measuring a dataset: one pass reads each case once, checks it and measures it.

Worker processes hold one case each. The quantities are those of nnU-Net, except that voxels with the ignore label are
not counted as foreground.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from autocrossdim.data.dataset import Case, Dataset
from autocrossdim.data.verify import CaseCheck, Report, check_case, check_structure, summarise
from autocrossdim.preprocessing.crop import box_shape, crop, nonzero_box
from autocrossdim.records.fingerprint import CaseFingerprint, Fingerprint, Intensities
from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import map_cases

MAX_SAMPLES = 10_000_000


@dataclass
class _Measured:
    check: CaseCheck
    case: CaseFingerprint | None
    samples: np.ndarray | None  # (C, samples) float32


def extract(dataset: Dataset, processes: int) -> tuple[Fingerprint, Report]:
    """Check and measure every training case.

    Returns:
        The fingerprint and the report, which holds warnings only.

    Raises:
        UserError: the dataset has faults; all of them are in the message, one a line.
    """
    structure = check_structure(dataset.path)
    cases = dataset.training_cases()
    measure = partial(_check_and_measure, dataset, MAX_SAMPLES // max(1, len(cases)))
    measured = map_cases(measure, cases, processes, "Reading cases")
    report = summarise([structure, *(m.check for m in measured)])
    if report.faults:
        raise UserError(f"{dataset.path}: {len(report.faults)} fault(s) found.\n" + "\n".join(report.faults))
    fingerprints = tuple(m.case for m in measured if m.case is not None)
    samples = np.concatenate([m.samples for m in measured if m.samples is not None], axis=1)
    return (
        Fingerprint(
            dims=2 if all(case.shape[0] == 1 for case in fingerprints) else 3,
            cases=fingerprints,
            intensities=tuple(_intensities(channel) for channel in samples),
        ),
        report,
    )


def _check_and_measure(dataset: Dataset, max_samples: int, case: Case) -> _Measured:
    check = check_case(dataset, case)
    image, label = check.image, check.label
    check.image = check.label = None  # arrays stay in the worker
    if check.faults or image is None or label is None:
        return _Measured(check, None, None)
    box = nonzero_box(image.array)
    values, counts = np.unique(label, return_counts=True)
    fingerprint = CaseFingerprint(
        name=case.name,
        shape=image.geometry.shape,
        cropped_shape=box_shape(box),
        spacing=image.geometry.spacing,
        label_voxels={int(v): int(n) for v, n in zip(values, counts, strict=True)},
    )
    cropped = crop(label, box)
    foreground = np.isin(cropped, [v for values in dataset.labels.foreground.values() for v in values])
    samples = crop(image.array, box)[:, foreground]
    if samples.shape[1] > max_samples:
        chosen = np.random.default_rng(1234).choice(samples.shape[1], max_samples, replace=False)
        samples = samples[:, chosen]
    return _Measured(check, fingerprint, samples)


def _intensities(samples: np.ndarray) -> Intensities:
    """Statistics of the foreground samples of one channel, shape (n,)."""
    if not samples.size:
        raise UserError("No case holds any foreground: there is nothing to learn. Check the label files.")
    low, median, high = np.percentile(samples, [0.5, 50, 99.5])
    return Intensities(
        mean=float(samples.mean(dtype=np.float64)),
        median=float(median),
        std=float(samples.std(dtype=np.float64)),
        min=float(samples.min()),
        max=float(samples.max()),
        percentile_00_5=float(low),
        percentile_99_5=float(high),
    )
