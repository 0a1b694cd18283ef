"""Intensities a network can work with, by nnU-Net's rules a channel name."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict
from scipy.ndimage import binary_fill_holes

Scheme = Literal["zscore", "ct", "nonorm", "rescale_to_0_1", "rgb_to_0_1"]


class Normalization(BaseModel):
    """How one channel is normalised.

    Attributes:
        scheme: `zscore` (mean 0, deviation 1 over the case), `ct` (clipped to the dataset's foreground
            percentiles, then its mean and deviation), `nonorm`, `rescale_to_0_1`, `rgb_to_0_1` (divided by 255).
        inside_mask: `zscore` looks only at the voxels that were imaged and leaves the others at 0.
        mean, std, lower, upper: of the dataset's foreground, in the image's own unit; used by `ct`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    scheme: Scheme
    inside_mask: bool = False
    mean: float = 0.0
    std: float = 1.0
    lower: float = 0.0
    upper: float = 0.0


def scheme_for(channel_name: str) -> Scheme:
    """Return the scheme for a channel name, as nnU-Net maps them: anything it does not know is `zscore`."""
    known: dict[str, Scheme] = {
        "ct": "ct",
        "nonorm": "nonorm",
        "zscore": "zscore",
        "rescale_to_0_1": "rescale_to_0_1",
        "rgb_to_0_1": "rgb_to_0_1",
    }
    return known.get(channel_name.lower(), "zscore")


def normalize(image: np.ndarray, schemes: list[Normalization]) -> np.ndarray:
    """Return the normalised image, float32, shape (C, Z, Y, X), one entry of `schemes` a channel."""
    needs_mask = any(scheme.inside_mask for scheme in schemes)
    mask = binary_fill_holes((image != 0).any(axis=0)) if needs_mask else None
    result = np.empty(image.shape, dtype=np.float32)
    for channel, scheme in enumerate(schemes):
        result[channel] = _normalize_channel(image[channel].astype(np.float32), scheme, mask)
    return result


def _normalize_channel(values: np.ndarray, scheme: Normalization, mask: np.ndarray | None) -> np.ndarray:
    # Means and deviations are taken in float64: float32 sums of raw intensities up to 1e6 lose digits.
    tiny = 1e-8
    if scheme.scheme == "ct":
        clipped: np.ndarray = np.clip(values, scheme.lower, scheme.upper)
        return (clipped - scheme.mean) / max(scheme.std, tiny)
    if scheme.scheme == "rescale_to_0_1":
        low, high = float(values.min()), float(values.max())
        return (values - low) / max(high - low, tiny)
    if scheme.scheme == "rgb_to_0_1":
        return values / 255
    if scheme.scheme == "nonorm":
        return values
    if scheme.inside_mask and mask is not None and mask.any():
        inside = values[mask]
        mean, std = float(inside.mean(dtype=np.float64)), float(inside.std(dtype=np.float64))
        return np.where(mask, (values - mean) / max(std, tiny), 0)
    mean, std = float(values.mean(dtype=np.float64)), float(values.std(dtype=np.float64))
    return (values - mean) / max(std, tiny)
