"""DS-Net: depth is compressed to three slices, which a 2D network takes as its RGB channels, and expanded again."""

import itertools
import math

from torch import Tensor, nn

from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.layers import he_normal
from autocrossdim.networks.unet import UNet
from autocrossdim.records.network import NetworkPlan

_SLICES = 3  # what an RGB stem takes
_FOLDED = 4  # channels that are folded into the batch
_DOWN_WIDTHS = (16, 32, 48, 96, _FOLDED)
_UP_WIDTHS = (96, 48, 32, 16)


def depth_strides(depth: int) -> list[int]:
    """Return four strides along depth that reduce a patch to three slices.

    Sizes are rounded up, so strides with the product p leave three slices of depths from 2p + 1 to 3p. The product
    closest to the paper's proportion (48 for 128) is chosen, with larger strides first, except for the last one. For a
    depth of 128, these are the strides of the paper: 3, 2, 2, 4.

    Args:
        depth: Depth of the patch in voxels, at least 5 (no stride leaves three of four slices).
    """
    choices = itertools.product((1, 2, 3), (1, 2, 3), (1, 2, 3), range(1, 1 + max(4, math.ceil(depth / 81))))
    fitting = [strides for strides in choices if -(-depth // math.prod(strides)) == _SLICES]
    best = min(fitting, key=lambda strides: (abs(math.prod(strides) - depth * 48 / 128), [-s for s in strides]))
    return list(best)


class DSNet(SegmentationNetwork):
    """3D -> 2D -> 3D, with the weights of a 2D classifier in the middle part.

    In-plane sizes are free; the depth is the plan's, because the layers that restore it depend on it.
    """

    encoder_prefix = "unet.encoder."

    def __init__(self, plan: NetworkPlan) -> None:
        super().__init__(plan)
        assert plan.depth is not None  # checked by the plan
        strides = depth_strides(plan.depth)
        down: list[nn.Module] = [_down(plan.in_channels, _DOWN_WIDTHS[0], 1)]
        up: list[nn.Module] = []
        depth = plan.depth
        for i, stride in enumerate(strides):
            down.append(_down(_DOWN_WIDTHS[i], _DOWN_WIDTHS[i + 1], stride))
            smaller = -(-depth // stride)
            into = _FOLDED if i == len(strides) - 1 else _UP_WIDTHS[-i - 2]
            up.insert(0, _up(into, _UP_WIDTHS[-i - 1], smaller, depth, stride))
            depth = smaller
        self.down, self.up = nn.Sequential(*down), nn.Sequential(*up)
        self.head = nn.Conv3d(_UP_WIDTHS[-1], plan.num_outputs, 3, padding=1)
        he_normal(self.head.weight, "fan_in")
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]
        changes = {"kind": "unet", "dims": 2, "in_channels": _SLICES, "num_outputs": _SLICES, "depth": None}
        changes |= {"deep_supervision": False, "strides": [entry[1:] for entry in plan.strides]}
        changes |= {"kernel_sizes": [entry[1:] for entry in plan.kernel_sizes]}
        self.unet = UNet(NetworkPlan.model_validate(plan.model_dump() | changes))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, Z, Y, X) -> logits (B, K, Z, Y, X), with Z the plan's depth.

        Raises:
            ValueError: The input has another depth.
        """
        if x.shape[2] != self.plan.depth:
            raise ValueError(f"this DS-Net is built for patches of depth {self.plan.depth}, not {x.shape[2]}")
        slices = self.down(x)
        folded = self.unet(slices.flatten(0, 1))
        return self.head(self.up(folded.unflatten(0, slices.shape[:2])))  # type: ignore[no-any-return]

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the features of the 2D encoder in the middle; see `SegmentationNetwork.encode`."""
        return self.unet.encode(self.down(x).flatten(0, 1))

    def image_layers(self) -> set[str]:
        """Return the name of the weight of the first 3D convolution."""
        return {"down.0.0.weight"}


def _tail(channels: int) -> list[nn.Module]:
    return [nn.InstanceNorm3d(channels, affine=True), nn.SiLU(inplace=True)]


def _conv(in_channels: int, out_channels: int, stride: int = 1) -> nn.Module:
    layer = nn.Conv3d(in_channels, out_channels, 3, (stride, 1, 1), padding=1, bias=False)
    he_normal(layer.weight, "fan_in")
    return layer


def _down(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    return nn.Sequential(_conv(in_channels, out_channels, stride), *_tail(out_channels))


def _up(in_channels: int, out_channels: int, small: int, large: int, stride: int) -> nn.Module:
    """Expand depth from `small` to `large` slices; at the paper's depths these are the paper's kernels."""
    stride = min(stride, 3)  # the authors expand three slices to eleven with stride 3 and kernel 5
    rest = large - (small - 1) * stride
    padding = max(0, -(-(stride - rest) // 2))  # no gaps: the kernel is at least as long as the stride
    kernel = rest + 2 * padding
    up = nn.ConvTranspose3d(in_channels, out_channels, (kernel, 1, 1), (stride, 1, 1), (padding, 0, 0))
    nn.init.normal_(up.weight, 0.0, math.sqrt(2.0 * stride / (in_channels * kernel)))
    nn.init.zeros_(up.bias)  # type: ignore[arg-type]
    return nn.Sequential(up, _conv(out_channels, out_channels), *_tail(out_channels))
