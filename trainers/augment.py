"""Augmentation of training patches: the transforms of nnU-Net 2.8.1, in its order.

With `STANDARD`, probabilities and ranges are nnU-Net's, too: those of `nnUNetTrainer.get_training_transforms` and of
`configure_rotation_dummyDA_mirroring_and_inital_patch_size` of the same class. `STRONG` changes more patches, and
further. The spatial transform of a patch is drawn first (`draw_warp`), so that only the voxels it needs are read.
Intensities are changed in place. All randomness comes from the generator that is passed in; torch does the computation.
"""

from collections.abc import Collection
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

IN_PLANE_ASPECT = 3.0  # a patch whose first axis is shorter by more than this is rotated in-plane only ("dummy 2D")
LONG_ASPECT = 1.5  # a slice with a larger aspect ratio is rotated by small angles only
ANGLE_3D, ANGLE_LONG_2D, ANGLE_2D = np.pi / 6, np.pi / 12, np.pi  # largest angle about each axis, in both directions

P_NOISE, NOISE = 0.1, (0.0, 0.1)  # standard deviation
P_BLUR, P_BLUR_CHANNEL, BLUR = 0.2, 0.5, (0.5, 1.0)  # sigma in voxels, per axis
BRIGHTNESS = (0.75, 1.25)  # factor
P_LOW_RESOLUTION, P_LOW_RESOLUTION_CHANNEL, LOW_RESOLUTION = 0.25, 0.5, (0.5, 1.0)  # fraction of the voxels per axis
P_GAMMA_INVERTED = 0.1
P_MIRROR = 0.5  # per axis

# Elastic deformation is a cubic B-spline on this many intervals per axis. It cannot fold as long as no control point
# moves by more than 0.48 (2D) or 0.40 (3D) of an interval (Choi and Lee, Graphical Models 62, 2000).
BEND_INTERVALS = 4
BEND_LIMIT = {2: 0.48, 3: 0.40}


@dataclass(frozen=True)
class Strength:
    """How often, and how far, a patch is changed.

    Attributes:
        affine: Probability of a rotation, and of a scaling.
        scales: Smallest and largest factor of a scaling.
        elastic: Probability of an elastic deformation.
        brightness: Probability of another brightness.
        contrast: Probability of another contrast.
        contrasts: Smallest and largest factor of the contrast.
        gamma: Probability of a gamma correction.
        gammas: Smallest and largest exponent.
    """

    affine: float = 0.2
    scales: tuple[float, float] = (0.7, 1.4)
    elastic: float = 0.0
    brightness: float = 0.15
    contrast: float = 0.15
    contrasts: tuple[float, float] = (0.75, 1.25)
    gamma: float = 0.3
    gammas: tuple[float, float] = (0.7, 1.5)


STANDARD = Strength()
STRONG = Strength(
    affine=0.6,
    scales=(0.5, 1.6),
    elastic=0.3,
    brightness=0.5,
    contrast=0.5,
    contrasts=(0.5, 1.5),
    gamma=0.7,
    gammas=(0.4, 2.0),
)
STRENGTHS = {"standard": STANDARD, "strong": STRONG}


@dataclass(frozen=True)
class Warp:
    """Spatial transform of a patch along the axes (Y, X) or (Z, Y, X).

    Attributes:
        matrix: Maps offsets from the centre of the patch to offsets in the source, in voxels, shape (dims, dims).
        bend: Displacements of the control points in voxels, applied before the matrix, shape (dims, *control points);
            None without elastic deformation.
    """

    matrix: np.ndarray
    bend: np.ndarray | None = None


def is_flat(patch: tuple[int, ...]) -> bool:
    """Return whether a 3D patch is augmented as a stack of slices, by nnU-Net's rule for "dummy 2D"."""
    return len(patch) == 3 and max(patch) / patch[0] > IN_PLANE_ASPECT


def _warped(patch: tuple[int, ...]) -> tuple[int, ...]:
    return patch[1:] if is_flat(patch) else patch


def draw_warp(
    patch: tuple[int, ...],
    random: np.random.Generator,
    strength: Strength = STANDARD,
    *,
    mirrored: Collection[int] | None = None,
) -> Warp | None:
    """Draw a rotation, a scaling and an elastic deformation about the centre of a patch.

    Args:
        patch: Patch size in voxels, 2 or 3 axes.
        random: Source of randomness.
        strength: How often and how far patches are changed.
        mirrored: Axes of the patch that may be mirrored; None for all.

    Returns:
        The transform; None if nothing was drawn.
    """
    axes = _warped(patch)
    dims = len(axes)
    rotate, rescale, elastic = random.random(3) < (strength.affine, strength.affine, strength.elastic)
    if not (rotate or rescale or elastic):
        return None
    matrix = np.eye(dims)
    if rotate:
        for a, b in [(0, 1)] if dims == 2 else [(0, 1), (0, 2), (1, 2)]:
            limit = _largest_angle(patch, mirrored)
            angle = random.uniform(-limit, limit)
            turn = np.eye(dims)
            turn[a, a] = turn[b, b] = np.cos(angle)
            turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
            matrix = matrix @ turn
    if rescale:
        matrix = matrix * random.uniform(*strength.scales)
    bend = None
    if elastic:
        limits = random.random() * BEND_LIMIT[dims] * (np.array(axes) - 1) / BEND_INTERVALS
        bend = random.uniform(-1, 1, (dims, *[BEND_INTERVALS + 3] * dims)) * limits.reshape(-1, *[1] * dims)
    return Warp(matrix, bend)


def _largest_angle(patch: tuple[int, ...], mirrored: Collection[int] | None) -> float:
    """Return the largest angle of a rotation, in radians.

    Where an axis is not mirrored because labels are told apart by their position along it, a half turn would exchange
    them just as mirroring does. nnU-Net turns such slices by any angle.
    """
    if len(patch) == 2 and max(patch) / min(patch) > LONG_ASPECT:
        return float(ANGLE_LONG_2D)
    in_plane = range(len(patch) - 2, len(patch))
    turns_freely = mirrored is None or set(in_plane) <= set(mirrored)
    return float(ANGLE_2D if len(_warped(patch)) == 2 and turns_freely else ANGLE_3D)


def source_shape(patch: tuple[int, ...], warp: Warp | None) -> tuple[int, ...]:
    """Return the size in voxels of the region that must be read for a patch under a transform."""
    if warp is None:
        return patch
    axes = _warped(patch)
    half = (np.array(axes) - 1) / 2
    if warp.bend is not None:
        # Between its control points, a B-spline is a weighted mean of them.
        half = half + np.abs(warp.bend).reshape(len(axes), -1).max(1)
    reach = np.abs(warp.matrix) @ half
    return (*patch[: len(patch) - len(axes)], *(int(np.ceil(2 * r)) + 1 for r in reach))


def apply_warp(
    image: np.ndarray, label: np.ndarray, patch: tuple[int, ...], warp: Warp
) -> tuple[np.ndarray, np.ndarray]:
    """Resample a region of `source_shape` to the patch: linear for the image, nearest for the label.

    Nearest-neighbour interpolation takes the same time for 2 and for 60 labels, and neither loses nor invents a label
    where three of them meet. nnU-Net interpolates every label separately.

    Args:
        image: Image, shape (C, *source), float32.
        label: Label values, shape (*source) or (L, *source), integers.
        patch: Patch size in voxels.
        warp: Transform from `draw_warp`.
    """
    axes, lead = _warped(patch), label.shape[: label.ndim - len(patch)]
    source = image.shape[-len(axes) :]
    grid = _grid(axes, source, warp)[None]
    # All slices of a flat patch are sampled at the same positions: they become channels.
    values = torch.from_numpy(image).reshape(1, -1, *source)
    labels = torch.from_numpy(label.astype(np.float32)).reshape(1, -1, *source)
    moved = functional.grid_sample(values, grid, mode="bilinear", align_corners=True)
    moved_label = functional.grid_sample(labels, grid, mode="nearest", align_corners=True, padding_mode="border")
    return moved.numpy().reshape(-1, *patch), moved_label.numpy().reshape(lead + patch).astype(label.dtype)


def _grid(axes: tuple[int, ...], source: tuple[int, ...], warp: Warp) -> Tensor:
    """Return the grid (*axes, dims) for grid_sample: x first; -1 and 1 are the centres of the first and last voxel."""
    half = np.maximum((np.array(source) - 1) / 2, 0.5)
    matrix = torch.from_numpy(np.ascontiguousarray((warp.matrix / half[:, None])[::-1], dtype=np.float32))
    dims = len(axes)
    grid = torch.zeros(dims)
    # Last axis first: the partial sums stay small until the end.
    for axis in reversed(range(dims)):
        offsets = torch.arange(axes[axis]) - (axes[axis] - 1) / 2
        grid = grid + offsets.reshape(-1, *[1] * (dims - axis)) * matrix[:, axis]
    if warp.bend is not None:
        field = torch.from_numpy(warp.bend.astype(np.float32))
        for n in axes:
            # Replaces the first axis of control points by an axis of voxels at the end.
            field = torch.tensordot(field, _spline(n), dims=([1], [1]))
        grid = grid + field.movedim(0, -1) @ matrix.T
    return grid


def _spline(n: int) -> Tensor:
    """Return the weights (n, BEND_INTERVALS + 3) of the control points of a uniform cubic B-spline at n voxels."""
    where = np.linspace(0, BEND_INTERVALS, n)[:, None] + 1
    distance = np.abs(where - np.arange(BEND_INTERVALS + 3))
    near, far = 2 / 3 - distance**2 + distance**3 / 2, (2 - distance) ** 3 / 6
    return torch.from_numpy(np.select([distance < 1, distance < 2], [near, far]).astype(np.float32))


def change_intensities(image: Tensor, random: np.random.Generator, strength: Strength = STANDARD) -> None:
    """Change a patch in place: noise, blur, brightness, contrast, low resolution, gamma.

    Args:
        image: Patch, shape (C, *patch), float32.
        random: Source of randomness.
        strength: How often and how far patches are changed.
    """
    if random.random() < P_NOISE:
        generator = torch.Generator().manual_seed(int(random.integers(2**63)))
        image.add_(torch.randn(image.shape, generator=generator), alpha=random.uniform(*NOISE))
    if random.random() < P_BLUR:
        for channel in image:
            if random.random() < P_BLUR_CHANNEL:
                blur(channel, random.uniform(*BLUR, channel.ndim))
    if random.random() < strength.brightness:
        for channel in image:
            channel.mul_(_about_one(BRIGHTNESS, random))
    if random.random() < strength.contrast:
        for channel in image:
            change_contrast(channel, _about_one(strength.contrasts, random))
    if random.random() < P_LOW_RESOLUTION:
        for channel in image:
            if random.random() < P_LOW_RESOLUTION_CHANNEL:
                lower_resolution(channel, random.uniform(*LOW_RESOLUTION))
    for probability, invert in ((P_GAMMA_INVERTED, True), (strength.gamma, False)):
        if random.random() < probability:
            for channel in image:
                change_gamma(channel, _about_one(strength.gammas, random), invert)


def _about_one(limits: tuple[float, float], random: np.random.Generator) -> float:
    """Draw a factor that is below or above 1 with equal probability."""
    low, high = limits
    return random.uniform(low, 1) if random.random() < 0.5 else random.uniform(1, high)


def blur(channel: Tensor, sigmas: np.ndarray) -> None:
    """Blur in place with a Gaussian of these sigmas (voxels), truncated at 3 sigma and mirrored at the border."""
    for axis, (n, sigma) in enumerate(zip(channel.shape, sigmas, strict=True)):
        radius = min(max(1, round(3 * float(sigma))), n - 1)
        weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
        weights /= 2 * weights.sum() - weights[0]
        before, after = channel.narrow(axis, 1, radius), channel.narrow(axis, n - 1 - radius, radius)
        padded = torch.cat([before.flip(axis), channel, after.flip(axis)], axis)
        # Sums of shifted copies: torch's convolution of a single channel takes several times as long.
        torch.mul(padded.narrow(axis, radius, n), weights[0], out=channel)
        for i, weight in enumerate(weights[1:], start=1):
            pair = padded.narrow(axis, radius - i, n) + padded.narrow(axis, radius + i, n)
            channel.add_(pair, alpha=float(weight))


def change_contrast(channel: Tensor, factor: float) -> None:
    """Scale the differences from the mean by a factor, in place; the range of values is preserved."""
    low, high = channel.aminmax()
    mean = channel.mean()
    channel.mul_(factor).add_(mean * (1 - factor)).clamp_(low, high)


def lower_resolution(channel: Tensor, share: float) -> None:
    """Downsample to a fraction of the voxels per axis and back, in place; slices of a flat patch stay apart."""
    flat = is_flat(tuple(channel.shape))
    values = channel[None] if flat else channel[None, None]
    shape = values.shape[2:]
    few = functional.interpolate(values, [max(1, round(n * share)) for n in shape], mode="nearest-exact")
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    channel.copy_(functional.interpolate(few, shape, mode=mode).reshape(channel.shape))


def change_gamma(channel: Tensor, gamma: float, invert: bool) -> None:
    """Raise values, scaled to 0 to 1, to a power, in place; mean and standard deviation are preserved."""
    low, high = (float(value) for value in channel.aminmax())
    span = high - low
    if span < 1e-7:  # as in nnU-Net
        return
    # When inverted, the highest value becomes 0.
    if invert:
        channel.sub_(high).mul_(-1 / span)
    else:
        channel.sub_(low).mul_(1 / span)
    mean, deviation = _moments(channel)
    channel.log_().mul_(gamma).exp_()  # three times as fast as pow
    new_mean, new_deviation = _moments(channel)
    factor = deviation / max(new_deviation, 1e-7)
    shift = mean - new_mean * factor
    if invert:
        channel.mul_(-span * factor).add_(high - span * shift)
    else:
        channel.mul_(span * factor).add_(low + span * shift)


def _moments(values: Tensor) -> tuple[float, float]:
    """Return mean and standard deviation of values between 0 and 1, faster than `std`."""
    line = values.flatten()
    mean = float(line.mean())
    return mean, max(float(torch.dot(line, line)) / line.numel() - mean**2, 0.0) ** 0.5


def drop_channels(image: np.ndarray, probability: float, random: np.random.Generator, slices: int = 1) -> None:
    """Set each channel to 0 with a probability, in place; at least one channel is kept.

    0 is the mean of a channel that is normalised to zero mean, and what prediction puts in place of a missing channel.

    Args:
        image: Patch, shape (channels * slices, *patch), float32; the slices of a channel follow one another.
        probability: Probability for each channel, 0 to 1.
        random: Source of randomness.
        slices: Neighbouring slices per channel.
    """
    dropped = random.random(len(image) // slices) < probability
    if dropped.all():
        dropped[random.integers(len(dropped))] = False
    image[np.repeat(dropped, slices)] = 0


def draw_mirroring(
    dims: int, random: np.random.Generator, axes: Collection[int] | None = None
) -> tuple[EllipsisType | slice, ...]:
    """Draw which of the last `dims` axes are mirrored, as an index (..., *axes).

    Args:
        dims: Number of axes of the patch.
        random: Source of randomness.
        axes: Axes that may be mirrored; all if None.
    """
    drawn = [random.random() < P_MIRROR for _ in range(dims)]
    allowed = range(dims) if axes is None else axes
    return (..., *(slice(None, None, -1 if drawn[axis] and axis in allowed else None) for axis in range(dims)))
