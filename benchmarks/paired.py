"""What benchmarks record of a run, and intervals of the paired differences between two arms.

Intervals are those of the studies (`autocrossdim.evaluation.interval`): a bootstrap of seeds and of patients, expanded
for their small number.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autocrossdim.evaluation.interval import Estimate, Floats
from autocrossdim.records.summary import Summary
from autocrossdim.studies.statistics import mean_of

PerCase = Mapping[str, Sequence[float]]  # Dice of each label, by case


def scores(summary: Summary) -> dict[str, Any]:
    """Return the mean Dice and HD95 over labels, and the Dice of every case and label."""
    return {
        "dice": summary.foreground_mean["Dice"],
        "hd95": summary.foreground_mean["HD95"],
        "per_case": {
            Path(case.prediction_file).name: [metrics["Dice"] for metrics in case.metrics.values()]
            for case in summary.metric_per_case
        },
    }


def differences(one: PerCase, other: PerCase) -> dict[str, float]:
    """Return the differences of the mean Dice over labels, by case; both have the same cases."""
    return {case: float(np.mean(one[case]) - np.mean(other[case])) for case in other}


def mean_difference(per_seed: Sequence[Mapping[str, float]]) -> str:
    """Return the mean of paired differences with its 95 % interval, such as `+0.012 (-0.003 to +0.027)`."""
    cases = sorted(set().union(*per_seed))
    values = np.array([[of_seed.get(case, np.nan) for case in cases] for of_seed in per_seed])
    found = estimated(values, [patient(case) for case in cases])
    return f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"


def patient(case: str) -> str:
    """Return the patient of a case: several slices or volumes of Sunnybrook are from one patient."""
    return re.split("-IM-|_ED|_ES", case)[0]


def estimated(values: Floats, groups: Sequence[str]) -> Estimate:
    """Return the mean over seeds and cases with its 95 % interval; its ends are NaN for fewer than two groups.

    Args:
        values: Metric per seed and case, shape `(seeds, cases)`; NaN is left out.
        groups: Group (patient) of each case.
    """
    known = ~np.isnan(values)
    if len(values) > 1 and known.sum(axis=0).max() == 1:
        # Every seed has cases of its own, such as those of another patient left out: a seed is drawn with its cases.
        groups = [str(seed) for seed in known.argmax(axis=0)]
        values = np.where(known.any(axis=0), np.nansum(values, axis=0), np.nan)[None]
    return mean_of(values, groups)
