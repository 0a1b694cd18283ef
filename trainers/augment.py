"""Changes of a training patch once its voxels are read: intensities, mirroring, dropped channels.

The transforms of intensities are those of nnU-Net 2.8.1, in its order. They work in place, on any device. All
randomness comes from the generator that is passed in; torch does the computation.
"""

from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainers.strength import STANDARD, Strength
from trainers.warp import is_flat

P_NOISE, NOISE = 0.1, (0.0, 0.1)  # standard deviation
P_BLUR, P_BLUR_CHANNEL, BLUR = 0.2, 0.5, (0.5, 1.0)  # sigma in voxels, per axis
BRIGHTNESS = (0.75, 1.25)  # factor
P_LOW_RESOLUTION, P_LOW_RESOLUTION_CHANNEL, LOW_RESOLUTION = 0.25, 0.5, (0.5, 1.0)  # fraction of the voxels per axis
P_GAMMA_INVERTED = 0.1
P_MIRROR = 0.5  # per axis


def change_intensities(image: Tensor, random: np.random.Generator, strength: Strength = STANDARD) -> None:
    """Change a patch in place: noise, blur, brightness, contrast, low resolution, gamma.

    Args:
        image: Patch, shape (C, *patch), float32.
        random: Source of randomness.
        strength: How often and how far patches are changed.
    """
    if random.random() < P_NOISE:
        generator = torch.Generator(image.device).manual_seed(int(random.integers(2**63)))
        noise = torch.randn(image.shape, generator=generator, device=image.device)
        image.add_(noise, alpha=random.uniform(*NOISE))
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


def drop_channels(image: Tensor, probability: float, random: np.random.Generator, slices: int = 1) -> None:
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
    for channel in np.flatnonzero(np.repeat(dropped, slices)):
        image[channel] = 0


def draw_mirroring(dims: int, random: np.random.Generator, axes: Collection[int] | None = None) -> tuple[int, ...]:
    """Draw which of the last `dims` axes are mirrored, counted from the last one, -1.

    Args:
        dims: Number of axes of the patch.
        random: Source of randomness.
        axes: Axes that may be mirrored; all if None.
    """
    drawn = [random.random() < P_MIRROR for _ in range(dims)]
    allowed = range(dims) if axes is None else axes
    return tuple(axis - dims for axis in range(dims) if drawn[axis] and axis in allowed)
