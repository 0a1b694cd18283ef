"""A plain U-Net without pretrained weights: the baseline that the other networks are compared with.

The layers are those of nnU-Net's `PlainConvUNet` (Isensee et al., Nature Methods 2021): per level two convolutions with
instance norm and leaky ReLU; strided convolutions on the way down, transposed ones on the way up.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.records.network import NetworkPlan

WIDTH = 32  # channels at full resolution, doubled from level to level
MAX_WIDTH = {2: 512, 3: 320}  # by number of axes
SLOPE = 0.01  # of the leaky ReLU

_CONV: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_NORM: dict[int, Any] = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


class PlainUNet(SegmentationNetwork):
    """Encoder and decoder over the plan's levels; the plan's encoder, widths and rule of inflation are not used."""

    def __init__(self, plan: NetworkPlan) -> None:
        super().__init__(plan)
        dims, levels = plan.dims, len(plan.strides)
        widths = [min(WIDTH * 2**level, MAX_WIDTH[dims]) for level in range(levels + 1)]
        self.encoder = nn.ModuleList()
        channels = plan.in_channels
        for level, width in enumerate(widths):
            stride = plan.strides[level - 1] if level else [1] * dims
            self.encoder.append(_two_layers(dims, channels, width, plan.kernel_sizes[level], stride))
            channels = width
        self.up, self.decoder, self.heads = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        for level in reversed(range(levels)):
            # Named by level, so that networks of different depth have the same names for the same thing.
            name, width, scale = f"level{level}", widths[level], tuple(plan.strides[level])
            self.up[name] = _UP[dims](widths[level + 1], width, scale, scale)
            self.decoder[name] = _two_layers(dims, 2 * width, width, plan.kernel_sizes[level], [1] * dims)
            if level == 0 or plan.deep_supervision:
                self.heads[name] = _CONV[dims](width, plan.num_outputs, 1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(B, C, *spatial) -> logits (B, K, *spatial), for spatial axes of any size.

        In training with deep supervision: a list of logits, full resolution first, then the coarser levels.
        """
        *skips, x = self.encode(x)
        logits: list[Tensor] = []
        for name, block in self.decoder.items():
            skip = skips.pop()
            # Strides round sizes up, so the enlarged feature is never too small; cropping keeps voxels aligned.
            x = self.up[name](x)[(..., *(slice(size) for size in skip.shape[2:]))]
            x = block(torch.cat([x, skip], dim=1))
            if name == "level0" or (self.training and name in self.heads):
                logits.insert(0, self.heads[name](x))
        return logits if len(logits) > 1 else logits[0]

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the features of every level; see `SegmentationNetwork.encode`."""
        features = []
        for block in self.encoder:
            x = block(x)
            features.append(x)
        return features

    def image_layers(self) -> set[str]:
        """Return the name of the weight of the first convolution."""
        return {"encoder.0.0.0.weight"}


def _two_layers(dims: int, in_channels: int, width: int, kernel: Sequence[int], stride: Sequence[int]) -> nn.Sequential:
    """Two convolutions, the first one with the stride."""
    flat = [1] * dims
    return nn.Sequential(_layer(dims, in_channels, width, kernel, stride), _layer(dims, width, width, kernel, flat))


def _layer(dims: int, in_channels: int, width: int, kernel: Sequence[int], stride: Sequence[int]) -> nn.Sequential:
    """Convolution, instance norm, leaky ReLU."""
    padding = [extent // 2 for extent in kernel]
    return nn.Sequential(
        _CONV[dims](in_channels, width, tuple(kernel), tuple(stride), padding),
        _NORM[dims](width, affine=True),
        nn.LeakyReLU(SLOPE, inplace=True),
    )
