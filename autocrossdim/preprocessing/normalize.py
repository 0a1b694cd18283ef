"""Intensity normalisation, chosen by the channel name as in nnU-Net."""

import math

import numpy as np
from scipy.ndimage import binary_fill_holes

from autocrossdim.records.normalization import Normalization, Scheme


def scheme_for(channel_name: str) -> Scheme:
    """Return the scheme for a channel name, as in nnU-Net: `zscore` for unknown names."""
    known: dict[str, Scheme] = {
        "ct": "ct",
        "nonorm": "nonorm",
        "zscore": "zscore",
        "rescale_to_0_1": "rescale_to_0_1",
        "rgb_to_0_1": "rgb_to_0_1",
    }
    return known.get(channel_name.lower(), "zscore")


def normalize(image: np.ndarray, schemes: list[Normalization], *, overwrite: bool = False) -> np.ndarray:
    """Return the normalised image.

    Args:
        image: Image (C, Z, Y, X).
        schemes: Normalisation of each channel.
        overwrite: Whether `image` may be changed, which saves the memory of a copy if its values are float32.

    Returns:
        Image (C, Z, Y, X), float32.
    """
    needs_mask = any(scheme.inside_mask for scheme in schemes)
    mask = binary_fill_holes((image != 0).any(axis=0)) if needs_mask else None
    result = image.astype(np.float32, order="C", copy=not (overwrite and image.flags.writeable))
    for values, scheme in zip(result, schemes, strict=True):
        _normalize_channel(values, scheme, mask)
    return result


def _normalize_channel(values: np.ndarray, scheme: Normalization, mask: np.ndarray | None) -> None:
    """Normalise one channel in place, because a copy of a scan can take half a gigabyte."""
    # Means and standard deviations are computed in float64: float32 sums of intensities up to 1e6 lose digits.
    tiny = 1e-8
    if scheme.scheme == "ct":
        np.clip(values, scheme.lower, scheme.upper, out=values)
        mean, std = scheme.mean, scheme.std
    elif scheme.scheme == "rescale_to_0_1":
        mean = float(values.min())
        std = float(values.max()) - mean
    elif scheme.scheme == "rgb_to_0_1":
        mean, std = 0.0, 255.0
    elif scheme.scheme == "nonorm":
        return
    elif scheme.inside_mask and mask is not None and mask.any():
        mean, std = _mean_and_deviation(values[mask])
        values[~mask] = mean  # which becomes 0
    else:
        mean, std = _mean_and_deviation(values)
    values -= mean
    values /= max(std, tiny)


def _mean_and_deviation(values: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation in float64, a million values at a time: numpy would copy all values."""
    flat = values.reshape(-1)
    mean = float(flat.mean(dtype=np.float64))
    parts = (flat[start : start + 2**20] for start in range(0, len(flat), 2**20))
    squares = sum(float(np.square(np.subtract(part, mean, dtype=np.float64)).sum()) for part in parts)
    return mean, math.sqrt(squares / len(flat))
