from typing import Literal

import numpy as np
import pytest

from autocrossdim.preprocessing.normalize import normalize, scheme_for
from autocrossdim.records.normalization import Normalization

IMAGE = np.random.default_rng(0).uniform(10, 1e6, (1, 4, 5, 6)).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("CT", "ct"),
        ("ct", "ct"),
        ("MRI", "zscore"),
        ("noNorm", "nonorm"),
        ("rescale_to_0_1", "rescale_to_0_1"),
    ],
)
def test_channel_names_choose_the_scheme(name: str, scheme: str) -> None:
    assert scheme_for(name) == scheme


def test_zscore_has_mean_0_and_deviation_1() -> None:
    result = normalize(IMAGE, [Normalization(scheme="zscore")])
    assert abs(result.mean()) < 1e-5
    assert abs(result.std() - 1) < 1e-5


def test_zscore_inside_the_mask_leaves_the_outside_at_0() -> None:
    image = IMAGE.copy()
    image[:, :2] = 0
    result = normalize(image, [Normalization(scheme="zscore", inside_mask=True)])
    assert (result[:, :2] == 0).all()
    assert abs(result[:, 2:].mean()) < 1e-5


def test_ct_is_clipped_and_scaled_by_the_dataset() -> None:
    scheme = Normalization(scheme="ct", mean=100, std=50, lower=-100, upper=300)
    image = np.array([-1000.0, 100, 5000]).reshape(1, 1, 1, 3)
    np.testing.assert_allclose(normalize(image, [scheme]).ravel(), [-4, 0, 4])


def test_ranges() -> None:
    assert np.ptp(normalize(IMAGE, [Normalization(scheme="rescale_to_0_1")])) == pytest.approx(1)
    np.testing.assert_allclose(normalize(IMAGE, [Normalization(scheme="rgb_to_0_1")]), IMAGE / 255)
    np.testing.assert_array_equal(normalize(IMAGE, [Normalization(scheme="nonorm")]), IMAGE)


@pytest.mark.parametrize("scheme", ["zscore", "ct", "rescale_to_0_1"])
def test_a_constant_channel_stays_finite(scheme: str) -> None:
    entry = Normalization(scheme=scheme, mean=5, std=0, lower=5, upper=5)  # type: ignore[arg-type]
    assert np.isfinite(normalize(np.full((1, 2, 2, 2), 5.0), [entry])).all()


def test_channels_are_independent() -> None:
    both = np.concatenate([IMAGE, IMAGE * 3 + 1])
    result = normalize(both, [Normalization(scheme="zscore")] * 2)
    np.testing.assert_allclose(result[0], result[1], atol=1e-5)


@pytest.mark.parametrize("scheme", ["zscore", "nonorm", "rescale_to_0_1"])
def test_only_an_image_that_may_be_overwritten_is_changed(
    scheme: Literal["zscore", "nonorm", "rescale_to_0_1"],
) -> None:
    image, schemes = IMAGE.copy(), [Normalization(scheme=scheme)]
    expected = normalize(image, schemes)
    np.testing.assert_array_equal(image, IMAGE)
    found = normalize(image, schemes, overwrite=True)
    assert np.shares_memory(found, image)
    np.testing.assert_array_equal(found, expected)


def test_an_image_that_cannot_be_overwritten_is_copied() -> None:
    image = IMAGE.copy()
    image.flags.writeable = False
    assert not np.shares_memory(normalize(image, [Normalization(scheme="zscore")], overwrite=True), image)
