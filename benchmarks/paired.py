"""Intervals of paired differences between two arms of a benchmark."""

import numpy as np


def interval(per_seed: list[list[float]]) -> tuple[float, float]:
    """Return the 95 % interval of the mean of paired differences: seeds are drawn, then the cases of each."""
    random = np.random.default_rng(0)
    means = [
        np.mean([np.mean(random.choice(per_seed[seed], len(per_seed[seed]))) for seed in seeds])
        for seeds in random.integers(len(per_seed), size=(10_000, len(per_seed)))
    ]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
