"""What benchmarks record of a run, and intervals of the paired differences between two arms."""

from pathlib import Path
from typing import Any

import numpy as np

from autocrossdim.records.summary import Summary


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


def interval(per_seed: list[list[float]]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of paired differences: seeds are drawn, then the cases of each."""
    random = np.random.default_rng(0)
    means = [
        np.mean([np.mean(random.choice(per_seed[seed], len(per_seed[seed]))) for seed in seeds])
        for seeds in random.integers(len(per_seed), size=(10_000, len(per_seed)))
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def mean_difference(per_seed: list[list[float]]) -> str:
    """Return the mean of paired differences with its 95 % interval, such as `+0.012 (-0.003 to +0.027)`."""
    low, high = interval(per_seed)
    return f"{np.mean([np.mean(cases) for cases in per_seed]):+.3f} ({low:+.3f} to {high:+.3f})"
