from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from trainers import augment
from trainers.augment import (
    blur,
    change_contrast,
    change_gamma,
    change_intensities,
    draw_mirroring,
    drop_channels,
    lower_resolution,
)
from trainers.strength import STANDARD, STRONG, Strength

PATCHES = [(8, 8), (30, 12), (16, 12, 10), (3, 20, 20)]


def values(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(3, 2, shape).astype(np.float32))


def test_blur_is_a_gaussian() -> None:
    channel = values(20, 16, 12)
    expected = gaussian_filter(channel.numpy(), (0.5, 0.8, 1.0), mode="mirror", radius=(2, 2, 3))
    blur(channel, np.array([0.5, 0.8, 1.0]))
    np.testing.assert_allclose(channel, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 9, 9), (2, 9, 9), (1, 1)])
def test_blur_keeps_the_mean_of_thin_patches(shape: tuple[int, ...]) -> None:
    channel = torch.full(shape, 5.0)
    blur(channel, np.ones(len(shape)))
    np.testing.assert_allclose(channel, 5, rtol=1e-6)


def test_contrast_spreads_values_about_their_mean_within_their_range() -> None:
    channel = torch.tensor([0.0, 4.0, 5.0, 11.0])  # mean 5
    change_contrast(channel, 1.5)
    np.testing.assert_allclose(channel, [0, 3.5, 5, 11])


@pytest.mark.parametrize("gamma", [0.7, 1.5])
@pytest.mark.parametrize("invert", [False, True])
def test_gamma_keeps_mean_and_deviation(gamma: float, invert: bool) -> None:
    channel = values(20, 20)
    before = channel.numpy().astype(np.float64)
    change_gamma(channel, gamma, invert)
    sign = -1 if invert else 1
    share = (sign * before - (sign * before).min()) / np.ptp(before)
    expected = sign * share**gamma
    expected = (expected - expected.mean()) / expected.std() * before.std() + before.mean()
    np.testing.assert_allclose(channel, expected, atol=1e-4)


def test_gamma_leaves_a_constant_image_alone() -> None:
    channel = torch.full((8, 8), 2.5)
    change_gamma(channel, 0.7, invert=False)
    assert (channel == 2.5).all()


def test_low_resolution_keeps_coarse_structure_only() -> None:
    line = torch.arange(64.0)
    channel = line[:, None] + line + (torch.arange(64) % 2) * 10.0
    lower_resolution(channel, 0.5)
    smooth = np.diff(channel.numpy()[:, 8:-8], axis=1)
    assert np.abs(smooth).max() < 5  # the zigzag of 10 is gone


def test_low_resolution_leaves_the_slices_of_a_flat_patch_apart() -> None:
    channel = torch.zeros(4, 32, 32)
    channel[::2] = 1
    before = channel.clone()
    lower_resolution(channel, 0.5)
    np.testing.assert_allclose(channel, before, atol=1e-6)


@pytest.mark.parametrize("patch", [(16, 16), (8, 16, 16), (2, 16, 16), (1, 16, 16)])
def test_intensities_change_with_the_seed_alone(patch: tuple[int, ...]) -> None:
    changed = []
    for seed in (*range(30), *range(30)):
        image = values(3, *patch)
        change_intensities(image, np.random.default_rng(seed))
        assert torch.isfinite(image).all()
        changed.append(image)
    assert all(torch.equal(a, b) for a, b in zip(changed[:30], changed[30:], strict=True))
    assert len({float(image.sum()) for image in changed}) > 15


@pytest.mark.parametrize(
    ("probability", "change"),
    [
        ("P_NOISE", None),
        ("P_BLUR", "blur"),
        ("brightness", None),
        ("contrast", "change_contrast"),
        ("P_LOW_RESOLUTION", "lower_resolution"),
        ("P_GAMMA_INVERTED", "change_gamma"),
        ("gamma", "change_gamma"),
    ],
)
@pytest.mark.parametrize("strength", [STANDARD, STRONG], ids=["standard", "strong"])
def test_each_change_is_as_frequent_as_its_probability(
    strength: Strength, probability: str, change: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = getattr(augment if probability.startswith("P_") else strength, probability)
    never = dict.fromkeys({"brightness", "contrast", "gamma"} - {probability}, 0.0)
    strength = replace(strength, **never)
    for other in [name for name in vars(augment) if name.startswith("P_") and "CHANNEL" not in name]:
        if other != probability:
            monkeypatch.setattr(augment, other, 0.0)
    monkeypatch.setattr(augment, "P_BLUR_CHANNEL", 1.0)
    monkeypatch.setattr(augment, "P_LOW_RESOLUTION_CHANNEL", 1.0)
    monkeypatch.setattr(augment, "LOW_RESOLUTION", (0.5, 0.6))  # nearer to 1, nothing would be lost of a small patch
    called: list[bool] = []
    if change is not None:
        original: Callable[..., None] = getattr(augment, change)
        monkeypatch.setattr(augment, change, lambda *given: (called.append(True), original(*given)))
    changes = 0
    for seed in range(400):
        image = values(1, 6, 6)
        change_intensities(image, np.random.default_rng(seed), strength)
        changes += not torch.equal(image, values(1, 6, 6))
    assert abs(changes / 400 - expected) < 0.08
    assert change is None or len(called) == changes


def test_every_axis_is_mirrored_half_of_the_time() -> None:
    drawn_axes = [draw_mirroring(3, np.random.default_rng(seed)) for seed in range(400)]
    shares = np.mean([[axis in axes for axis in (-3, -2, -1)] for axes in drawn_axes], axis=0)
    assert ((shares > 0.4) & (shares < 0.6)).all()


@settings(deadline=None)
@given(st.integers(1, 4), st.sampled_from([1, 3]), st.floats(0, 0.99), st.integers(0, 2**32))
def test_some_channels_are_dropped_with_all_of_their_slices(
    channels: int, slices: int, probability: float, seed: int
) -> None:
    image = torch.ones(channels * slices, 2, 3)
    drop_channels(image, probability, np.random.default_rng(seed), slices)
    kept = image.reshape(channels, -1)
    assert kept.any(), "at least one channel is kept"
    assert (kept == kept[:, :1]).all()


def test_each_channel_is_dropped_with_the_given_probability() -> None:
    shares = np.zeros(3)
    for seed in range(1000):
        image = torch.ones(3, 2, 2)
        drop_channels(image, 0.3, np.random.default_rng(seed))
        shares += 1 - image[:, 0, 0].numpy()
    assert np.abs(shares / 1000 - 0.3).max() < 0.05
