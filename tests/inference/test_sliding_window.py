import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocrossdim.inference.body import Body
from autocrossdim.inference.sliding_window import Window, gaussian, logits_by_slab, tile_starts


class Local(nn.Module):
    """Returns each voxel and its negative, so that tiling and mirroring must not be visible in the result."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, -x], dim=1) * self.scale


@given(st.integers(1, 300), st.integers(1, 100))
def test_tiles_cover_the_axis_at_most_half_a_patch_apart(size: int, patch: int) -> None:
    starts = tile_starts(size, patch)
    assert starts[0] == 0
    assert starts[-1] == max(0, size - patch)
    steps = [b - a for a, b in itertools.pairwise(starts)]
    assert all(0 < step <= max(1, patch // 2) for step in steps)


def test_the_weight_is_largest_in_the_middle_and_positive_everywhere() -> None:
    weight = gaussian((5, 6, 7))
    assert weight.shape == (5, 6, 7)
    assert weight.argmax() == torch.tensor([2, 2, 3]) @ torch.tensor([42, 7, 1])
    assert weight.min() > 0


@settings(max_examples=25, deadline=None)
@given(
    st.tuples(*[st.integers(1, 17)] * 3),
    st.sampled_from(
        [
            Window(3, (4, 6, 5), 3),
            Window(3, (1, 4, 4), 2, mirror_axes=(1, 2)),
            Window(2, (1, 6, 5), 4, mirror_axes=(0, 1)),
        ]
    ),
)
def test_a_voxelwise_network_returns_the_image(shape: tuple[int, int, int], window: Window) -> None:
    image = torch.randn(1, *shape)
    slabs = list(logits_by_slab([Local(), Local()], image, 2, window))
    found = torch.cat(slabs, dim=1)
    torch.testing.assert_close(found, torch.cat([image, -image]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("depth", [20, 40])
def test_no_slab_is_deeper_than_a_patch(depth: int) -> None:
    window = Window(3, (8, 8, 8), 2)
    slabs = list(logits_by_slab([Local()], torch.zeros(1, depth, 8, 8), 2, window))
    assert max(slab.shape[1] for slab in slabs) <= 8


class Neighbours(nn.Module):
    """Returns the sum of its input channels."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(dim=1, keepdim=True) * self.scale


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_neighbouring_slices_are_channels_and_zeros_follow_the_last_one(depth: int) -> None:
    image = torch.randn(1, depth, 6, 6)
    found = torch.cat(list(logits_by_slab([Neighbours()], image, 1, Window(2, (1, 6, 6), 3, slices=3))), dim=1)
    padded = torch.nn.functional.pad(image, (0, 0, 0, 0, 1, 1))
    expected = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


class Counting(nn.Module):
    """A convolution, whose tiles differ where they overlap. Counts the patches and the largest batch."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        torch.manual_seed(dims)
        self.conv = (nn.Conv3d if dims == 3 else nn.Conv2d)(1, 2, 3, padding=1)
        self.patches, self.batch = 0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.patches, self.batch = self.patches + len(x), max(self.batch, len(x))
        return self.conv(x)


WINDOWS = [
    Window(3, (4, 6, 5), 3),
    Window(3, (4, 6, 5), 3, mirror_axes=(0, 1, 2)),
    Window(2, (1, 6, 5), 4, mirror_axes=(1,)),
]


def predict(network: nn.Module, image: torch.Tensor, window: Window, **more: object) -> torch.Tensor:
    return torch.cat(list(logits_by_slab([network], image, 2, window, **more)), dim=1)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", [(9, 14, 11), (3, 4, 20)])
def test_strips_of_lines_give_the_same_result_as_all_lines(window: Window, shape: tuple[int, int, int]) -> None:
    network, image = Counting(window.dims), torch.randn(1, *shape)
    whole = predict(network, image, window)
    cuts = [0, 1, shape[1] - 2, shape[1]]
    strips = [predict(network, image, window, lines=slice(lo, hi)) for lo, hi in itertools.pairwise(cuts)]
    torch.testing.assert_close(torch.cat(strips, dim=2), whole)


@pytest.mark.parametrize("window", WINDOWS)
def test_mirrored_tiles_share_batches_of_the_requested_size(window: Window) -> None:
    network = Counting(window.dims)
    predict(network, torch.randn(1, 9, 14, 11), window)
    tiles = len(tile_starts(14, 6)) * len(tile_starts(11, 5)) * (9 if window.dims == 2 else len(tile_starts(9, 4)))
    assert network.patches == tiles * 2 ** len(window.mirror_axes)
    assert network.batch == window.batch


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("shape", [(12, 20, 20), (3, 20, 20)])  # the second is padded
def test_tiles_outside_the_body_are_background_and_the_body_is_unchanged(
    window: Window, shape: tuple[int, int, int]
) -> None:
    inside = np.zeros(shape, dtype=bool)
    inside[1:3, 2:5, 3:5] = True
    image = torch.randn(1, *shape) * torch.from_numpy(inside)
    everywhere, some = Counting(window.dims), Counting(window.dims)
    expected = predict(everywhere, image, window)
    found = predict(some, image, window, body=Body(inside, torch.tensor([7.0, -7.0])))
    np.testing.assert_array_equal(found[:, inside], expected[:, inside])
    assert some.patches < everywhere.patches / 2
    assert (found[0, :, 15:] == 7).all()
    assert (found[1, :, 15:] == -7).all()


def test_a_case_without_a_body_is_background() -> None:
    network = Counting(3)
    body = Body(np.zeros((5, 6, 7), dtype=bool), torch.tensor([7.0, -7.0]))
    found = predict(network, torch.zeros(1, 5, 6, 7), WINDOWS[0], body=body)
    assert network.patches == 0
    assert (found[0] == 7).all()


def test_logits_are_held_for_one_depth_of_patches_whatever_the_length_of_the_volume() -> None:
    window = Window(3, (96, 96, 96), 2)
    held = window.held_bytes(61, (600, 512, 512))
    assert held == window.held_bytes(61, (6000, 512, 512)) == 4 * (61 + 1) * 96 * 512 * 512


def test_label_values_of_a_previous_stage_become_one_mask_per_region() -> None:
    values = torch.from_numpy(np.random.default_rng(0).integers(0, 4, (9, 12, 8))).float()
    image = torch.stack([torch.randn(values.shape), values])
    window = Window(dims=3, patch=(4, 8, 8), batch=2, mirror_axes=(0, 2), masks=((1, 2, 3), (2,)))

    def masks_are_logits(tiles: torch.Tensor) -> torch.Tensor:
        assert tiles.shape[1] == 1 + 2
        return tiles[:, 1:]

    found = torch.cat(list(logits_by_slab([masks_are_logits], image, 2, window)), dim=1)  # type: ignore[list-item]
    torch.testing.assert_close(found, torch.stack([values > 0, values == 2]).float())
