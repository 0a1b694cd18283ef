"""Slices or volumes: the choice, and the sentences that say why."""

from dataclasses import dataclass, field

import numpy as np

CLOSE_CASE = (2.0, 4.0)  # between these ratios nothing published settles 2D against 3D
FEW_SLICES = 8  # an axis with fewer cannot be halved even once and keep 4 voxels (nnU-Net's smallest feature map)
THIN = 3.0  # and is thin where the other axes have this many times its voxels (nnU-Net's factor for a coarse axis)
MIXED_SHARE = 0.1  # of the cases on the other side of the threshold, from which on a dataset counts as mixed


@dataclass
class Choice:
    """A configuration, the ratio it rests on, and why."""

    configuration: str
    anisotropy: float
    reasons: list[str] = field(default_factory=list)


def choose(spacings: np.ndarray, shapes: np.ndarray, threshold: float) -> Choice:
    """Choose between `omnia` and `dx` for volumes.

    Args:
        spacings: shape (cases, 3), mm, coarsest axis first.
        shapes: shape (cases, 3), voxels after cropping.
        threshold: anisotropy of the median spacing from which on slices are preferred.
    """
    spacing, shape = np.median(spacings, axis=0), np.median(shapes, axis=0)
    ratio = float(spacing.max() / spacing.min())
    coarse, fine = float(spacing.max()), float(spacing.min())
    if ratio >= threshold:
        choice = Choice(
            "omnia",
            ratio,
            [
                f"Slices are {coarse:.3g} mm apart while pixels are {fine:.3g} mm wide, {ratio:.2g} times finer.",
                f"From a ratio of {threshold:g} on, neighbouring slices say little about each other, so a 2D network "
                "(omnia) looks at one slice at a time.",
            ],
        )
    elif shape[0] < FEW_SLICES and shape[0] * THIN <= shape[1:].min():
        choice = Choice(
            "omnia",
            ratio,
            [
                f"Voxels are nearly cubes (a ratio of {ratio:.2g}), but there are only {shape[0]:.0f} slices: fewer "
                f"than {FEW_SLICES} leave a 3D network (dx) nothing to gather along them, so a 2D network (omnia) "
                "looks at one slice at a time."
            ],
        )
    else:
        choice = Choice(
            "dx",
            ratio,
            [
                f"Voxels are nearly cubes: {coarse:.3g} mm along the coarsest axis, {fine:.3g} mm along the finest, a "
                f"ratio of {ratio:.2g}.",
                f"Below a ratio of {threshold:g}, neighbouring slices show the same anatomy, so a 3D network (dx) "
                "looks at whole volumes.",
            ],
        )
    if CLOSE_CASE[0] <= ratio <= CLOSE_CASE[1]:
        other = "dx" if choice.configuration == "omnia" else "omnia"
        choice.reasons.append(
            f"A ratio between {CLOSE_CASE[0]:g} and {CLOSE_CASE[1]:g} is a close case: train the other one too "
            f"(`autocrossdim train DATASET --config {other}`) and let cross-validation choose."
        )
    return choice


def mixed_note(spacings: np.ndarray, threshold: float) -> str | None:
    """Say that a dataset holds both thick-sliced and near-cubic cases, or None.

    Args:
        spacings: shape (cases, 3), mm.
        threshold: anisotropy that parts them.
    """
    thick = spacings.max(axis=1) / spacings.min(axis=1) >= threshold
    share = float(thick.mean())
    if not MIXED_SHARE <= share <= 1 - MIXED_SHARE:
        return None
    return (
        f"The dataset is mixed: {int(thick.sum())} of {len(thick)} cases have thick slices (a ratio of {threshold:g} "
        "or more), the others have not. Train both configurations and ensemble them."
    )
