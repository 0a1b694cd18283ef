"""The choice between slices (2D) and volumes (3D), and the sentences that explain it."""

from dataclasses import dataclass

from planners.spacing import CaseSizes

CLOSE_CALL = (2.0, 4.0)  # anisotropies at which no published comparison settles 2D against 3D
FEW_SLICES = 8  # an axis with fewer voxels cannot be halved once and keep 4 (nnU-Net's smallest feature map)
THIN_RATIO = 3.0  # other axes with this many times its voxels make an axis thin (nnU-Net's factor for a coarse axis)
MIXED_SHARE = 0.1  # share of cases on either side of the threshold that makes a dataset mixed (our choice)


@dataclass(frozen=True)
class Choice:
    """A configuration, the anisotropy it was chosen at, and the reasons, one sentence each."""

    configuration: str
    anisotropy: float
    reasons: tuple[str, ...]


def choose(sizes: CaseSizes, threshold: float, dims: int = 3) -> Choice:
    """Choose between `omnia` (2D) and `dx` (3D).

    Args:
        sizes: Sizes of the training cases.
        threshold: Anisotropy of the median spacing at which slices are preferred.
        dims: Number of axes of the images; 2D images leave no choice.
    """
    if dims == 2:
        return Choice("omnia", 1.0, ("The images are 2D, so only a 2D network (omnia) applies.",))
    ratio = sizes.anisotropy
    coarse, fine = sizes.median_spacing.max(), sizes.median_spacing.min()
    slices, *in_plane = sizes.median_shape
    if ratio >= threshold:
        name = "omnia"
        reasons = [
            f"Slices are {coarse:.3g} mm apart and pixels are {fine:.3g} mm wide, a ratio of {ratio:.3g}.",
            f"At a ratio of {threshold:g} or more, neighbouring slices share little anatomy, so a 2D network (omnia) "
            "segments the volume slice by slice.",
        ]
    elif slices < FEW_SLICES and slices * THIN_RATIO <= min(in_plane):
        name = "omnia"
        reasons = [
            f"The ratio of the spacings is only {ratio:.3g}, but a typical volume has only {slices:.0f} slices.",
            f"With fewer than {FEW_SLICES} slices, a 3D network (dx) gains no context across them, so a 2D "
            "network (omnia) segments the volume slice by slice.",
        ]
    else:
        name = "dx"
        reasons = [
            f"The spacing is {coarse:.3g} mm along the coarsest axis and {fine:.3g} mm along the finest, a ratio of "
            f"{ratio:.3g}.",
            f"Below a ratio of {threshold:g}, neighbouring slices show much the same anatomy, so a 3D network (dx) "
            "segments whole volumes.",
        ]
    if CLOSE_CALL[0] <= ratio <= CLOSE_CALL[1]:
        other = "dx" if name == "omnia" else "omnia"
        reasons.append(
            f"A ratio between {CLOSE_CALL[0]:g} and {CLOSE_CALL[1]:g} is a close call. Also train the other "
            f"configuration (`autocrossdim train DATASET --config {other}`) and let `autocrossdim find_best DATASET` "
            "compare the two."
        )
    return Choice(name, ratio, tuple(reasons))


def mixed_note(sizes: CaseSizes, threshold: float) -> str | None:
    """Return a note if some cases are anisotropic and others are not, else None.

    Args:
        sizes: Sizes of the training cases.
        threshold: Anisotropy that separates the two kinds of cases.
    """
    thick = sizes.spacings.max(axis=1) / sizes.spacings.min(axis=1) >= threshold
    if not MIXED_SHARE <= thick.mean() <= 1 - MIXED_SHARE:
        return None
    return (
        f"The dataset is mixed: {thick.sum()} of {len(thick)} cases have thick slices (a ratio of {threshold:g} or "
        "more), the others do not. Train both configurations and ensemble them."
    )
