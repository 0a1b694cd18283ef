import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autocrossdim.inference.sliding_window import Window, gaussian, logits_by_slab, tile_starts


class Local(nn.Module):
    """Answers each voxel with itself and its opposite: tiles and mirroring must not be seen in the result."""

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


def test_the_weight_is_largest_in_the_middle_and_nowhere_0() -> None:
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
def test_a_local_network_gives_the_image_back(shape: tuple[int, int, int], window: Window) -> None:
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
    """Answers with the sum of the channels it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sum(dim=1, keepdim=True) * self.scale


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_neighbouring_slices_are_channels_and_nothing_lies_beyond_the_ends(depth: int) -> None:
    image = torch.randn(1, depth, 6, 6)
    found = torch.cat(list(logits_by_slab([Neighbours()], image, 1, Window(2, (1, 6, 6), 3, slices=3))), dim=1)
    padded = torch.nn.functional.pad(image, (0, 0, 0, 0, 1, 1))
    expected = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
