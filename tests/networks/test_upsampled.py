import pytest
import torch
from torch.nn import functional as F

from autocrossdim.networks.build import build_network
from autocrossdim.networks.upsampled import conv_upsampled
from autocrossdim.records.network import NetworkPlan


@pytest.mark.parametrize(
    ("scale", "kernel", "small"),
    [
        ((2, 2), (3, 3), (4, 5)),
        ((4, 4), (3, 3), (2, 3)),  # a level was left out
        ((2, 2, 2), (3, 3, 3), (3, 4, 1)),
        ((1, 2, 2), (1, 3, 3), (3, 4, 5)),
        ((1, 2, 2), (3, 3, 3), (3, 4, 5)),
        ((2, 2, 1), (1, 1, 3), (3, 4, 5)),
    ],
)
def test_it_is_enlarging_concatenating_and_convolving(
    scale: tuple[int, ...], kernel: tuple[int, ...], small: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, *small, requires_grad=True)
    skip = torch.randn(2, 3, *(n * s for n, s in zip(small, scale, strict=True)), requires_grad=True)
    weight = torch.randn(4, 8, *kernel, requires_grad=True)
    conv = F.conv3d if len(scale) == 3 else F.conv2d
    enlarged = F.interpolate(x, scale_factor=tuple(map(float, scale)), mode="nearest")
    expected = conv(torch.cat([enlarged, skip], 1), weight, padding=[k // 2 for k in kernel])
    found = conv_upsampled(x, skip, weight, scale)
    along = torch.randn(expected.shape)
    gradients = [torch.autograd.grad(y, (x, skip, weight), along) for y in (found, expected)]
    for one, other in zip((found, *gradients[0]), (expected, *gradients[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.detach().abs().max()))


@pytest.mark.parametrize("shape", [(16, 16, 16), (15, 16, 13)])
def test_a_decoder_block_is_the_same_either_way(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    plan = NetworkPlan(
        dims=3, encoder="resnet18", in_channels=1, num_outputs=2, strides=[[2] * 3] * 3, kernel_sizes=[[3] * 3] * 4
    )
    network = build_network(plan, None).eval()
    image = torch.randn(1, 1, *shape)
    with torch.no_grad():
        found = network(image)
        for block in network.decoder.values():  # type: ignore[union-attr, operator]
            monkeypatch.setattr(block, "_enlarged", lambda _: None)
        expected = network(image)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
