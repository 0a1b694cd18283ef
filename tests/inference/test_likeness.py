from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autocrossdim.inference.likeness import feature_numbers, image_numbers
from autocrossdim.inference.model import Model
from autocrossdim.inference.residence import Visiting
from autocrossdim.inference.sliding_window import Window, some_tiles
from autocrossdim.networks.build import build_network
from autocrossdim.preprocessing.case import Placement
from autocrossdim.system.device import CPU

DS = {"kind": "ds", "strides": ((1, 2, 2),) * 3}


def placement(shape: tuple[int, int, int] = (12, 20, 16), margin: int = 0) -> Placement:
    full = tuple(n + margin for n in shape)
    z, y, x = shape
    return Placement(
        original_shape=full,
        transpose=(0, 1, 2),
        box=((0, z), (0, y), (0, x)),
        spacing=(3.0, 1.0, 0.5),
        target=(3.0, 1.0, 0.5),
        shape=shape,
    )


def image(channels: int = 1, shape: tuple[int, int, int] = (12, 20, 16)) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(channels, *shape)).astype(np.float32)


def test_size_is_the_extent_of_the_imaged_part_in_mm_and_spacing_that_of_the_file() -> None:
    for margin in (0, 9):
        numbers = image_numbers(image(), placement(margin=margin))
        np.testing.assert_allclose(np.exp(numbers["size"]), [36, 20, 8])
        np.testing.assert_allclose(np.exp(numbers["spacing"]), [3, 1, 0.5])


def test_intensity_is_quantiles_per_channel() -> None:
    values = np.stack([image()[0], np.linspace(0, 100, 12 * 20 * 16, dtype=np.float32).reshape(12, 20, 16)])
    numbers = image_numbers(values, placement())["intensity"].reshape(2, 7)
    np.testing.assert_allclose(numbers[1], [1, 5, 25, 50, 75, 95, 99], atol=0.1)
    np.testing.assert_allclose(image_numbers(-values, placement())["intensity"].reshape(2, 7), -numbers[:, ::-1], 1e-4)


def test_texture_rises_with_noise_falls_with_blur_and_ignores_contrast() -> None:
    smooth = np.broadcast_to(np.sin(np.linspace(0, 6, 20))[:, None], (1, 12, 20, 16)).astype(np.float32)

    def texture(array: np.ndarray) -> float:
        return float(image_numbers(array, placement())["texture"][0])

    assert texture(smooth + 0.3 * image()) > texture(smooth + 0.1 * image()) > texture(smooth) + 1
    assert texture(40 * smooth + 7) == pytest.approx(texture(smooth), abs=1e-3)
    assert np.isfinite(texture(np.zeros_like(smooth)))
    thin = np.zeros((1, 3, 2, 2), np.float32)  # no second differences
    assert np.isfinite(image_numbers(thin, placement((3, 2, 2)))["texture"]).all()


@pytest.mark.parametrize(
    ("window", "shape", "count"),
    [
        (Window(3, (8, 8, 8), 1), (32, 40, 8), 8),
        (Window(3, (8, 8, 8), 1), (6, 7, 5), 1),
        (Window(2, (1, 8, 8), 4, slices=3), (11, 8, 8), 8),
    ],
)
def test_tiles_are_spread_over_the_image(window: Window, shape: tuple[int, int, int], count: int) -> None:
    numbered = torch.arange(shape[0], dtype=torch.float32)[None, :, None, None].expand(1, *shape)
    tiles = list(some_tiles(numbered, window, 8))
    assert len(tiles) == count
    expected = (1, 8, 8, 8) if window.dims == 3 else (3, 8, 8)
    assert {tuple(tile.shape) for tile in tiles} == {expected}
    if count > 1:
        assert {float(tile.min()) for tile in tiles} >= {0.0}
        assert max(float(tile.max()) for tile in tiles) == shape[0] - 1


@pytest.mark.parametrize("options", [{}, {"dims": 2}, DS, {"network": "paper"}])
def test_features_belong_to_a_fold_and_depend_on_the_image(make_plan: Callable[..., Any], options: Any) -> None:
    plan = make_plan(**options)
    torch.manual_seed(0)
    networks = [build_network(plan.network_plan(plan.configuration()), None).eval() for _ in range(2)]
    model = Model(plan, plan.configuration(), [networks[0], Visiting(networks[1], CPU)], folds=(0, "all"))
    values = image(shape=(20, 18, 16))
    found = feature_numbers(model, values)
    name = plan.configuration().name
    assert set(found) == {f"{name}/fold_0", f"{name}/fold_all"}
    one, other = found.values()
    assert one.ndim == 1
    assert np.isfinite(one).all()
    assert not np.allclose(one, other)
    np.testing.assert_allclose(feature_numbers(model, values)[f"{name}/fold_0"], one, rtol=1e-6)
    assert not np.allclose(feature_numbers(model, values**3)[f"{name}/fold_0"], one, rtol=1e-2)


def test_networks_without_an_encoder_or_of_an_unknown_fold_have_no_features(make_plan: Callable[..., Any]) -> None:
    plan = make_plan()
    configuration = plan.configuration()
    assert feature_numbers(Model(plan, configuration, [nn.Identity()], folds=(0,)), image()) == {}
    network = build_network(plan.network_plan(configuration), None).eval()
    assert feature_numbers(Model(plan, configuration, [network]), image()) == {}
