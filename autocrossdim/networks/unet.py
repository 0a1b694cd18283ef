"""Omnia-Net and DX-Net: one U-Net over `dims`, because the second is the 3D twin of the first."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.encoder import Encoder
from autocrossdim.networks.layers import he_normal
from autocrossdim.networks.upsampled import conv_upsampled
from autocrossdim.records.network import PRE_CHANNELS, NetworkPlan

_CONV: dict[int, Callable[..., Any]] = {2: nn.Conv2d, 3: nn.Conv3d}
_UP: dict[int, Callable[..., Any]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_BATCH_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def conv(dims: int, in_channels: int, out_channels: int, kernel: Sequence[int], bias: bool = False) -> nn.Module:
    """Return a convolution that keeps the size. He initialisation by fan-in keeps the first logits small."""
    layer = _CONV[dims](in_channels, out_channels, tuple(kernel), padding=[k // 2 for k in kernel], bias=bias)
    he_normal(layer.weight, "fan_in")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer  # type: ignore[no-any-return]


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm, activation."""

    def __init__(self, plan: NetworkPlan, in_channels: int, out_channels: int, kernel: Sequence[int]) -> None:
        super().__init__()
        self.conv = conv(plan.dims, in_channels, out_channels, kernel)
        self.norm = _BATCH_NORM[plan.dims](out_channels)
        self.act = nn.ReLU(inplace=True) if plan.activation == "relu" else nn.SiLU(inplace=True)

    def rest(self, x: Tensor) -> Tensor:
        """Apply what follows the convolution: (B, out_channels, *spatial) -> the same shape."""
        return self.act(self.norm(x))  # type: ignore[no-any-return]


class DecoderBlock(nn.Module):
    """Upsample, crop to the size of the skip connection, concatenate, convolve twice.

    Args:
        plan: Plan of the network.
        in_channels: Number of channels from the coarser level.
        skip_channels: Number of channels of the skip connection.
        level: Level of the skip connection.
        below: Level that the input comes from.
    """

    def __init__(self, plan: NetworkPlan, in_channels: int, skip_channels: int, level: int, below: int) -> None:
        super().__init__()
        scale = tuple(math.prod(strides) for strides in zip(*plan.strides[level:below], strict=True))
        kernel, width = list(plan.kernel_sizes[level]), plan.decoder_width(level)
        self.scale = scale
        self.up: nn.Module = nn.Identity()
        if plan.up == "transpose":  # keeps its channels and has a bias, as the authors' does
            up = _UP[plan.dims](in_channels, in_channels, scale, scale)
            nn.init.normal_(up.weight, 0.0, math.sqrt(2.0 / in_channels))  # one kernel position per voxel
            nn.init.zeros_(up.bias)
            self.up = up
        elif max(scale) > 1:
            self.up = nn.Upsample(scale_factor=tuple(map(float, scale)), mode="nearest")
        self.conv1 = ConvNormAct(plan, in_channels + skip_channels, width, kernel)
        self.conv2 = ConvNormAct(plan, width, width, kernel)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """(B, in_channels, *small), (B, skip_channels, *spatial) -> (B, width, *spatial)."""
        if isinstance(self.up, nn.Upsample) and list(skip.shape[2:]) == self._enlarged(x):
            x = self.conv1.rest(conv_upsampled(x, skip, self.conv1.conv.weight, self.scale))  # type: ignore[arg-type]
        else:
            # Strides round sizes up, so the enlarged feature is never too small; cropping keeps voxels aligned.
            x = self.up(x)[(..., *(slice(size) for size in skip.shape[2:]))]
            x = self.conv1(torch.cat([x, skip], dim=1))
        return self.conv2(x)  # type: ignore[no-any-return]

    def _enlarged(self, x: Tensor) -> list[int]:
        return [size * scale for size, scale in zip(x.shape[2:], self.scale, strict=True)]


class UNet(SegmentationNetwork):
    """A pretrained encoder, a pre-block at full resolution, and the decoder of Omnia-Net."""

    def __init__(self, plan: NetworkPlan) -> None:
        super().__init__(plan)
        fed_by_pre = plan.network == "paper"
        kernel = list(plan.kernel_sizes[0])
        self.pre = ConvNormAct(plan, plan.in_channels, PRE_CHANNELS, kernel)
        self.encoder = Encoder(plan, PRE_CHANNELS if fed_by_pre else plan.in_channels)
        self.decoder = nn.ModuleDict()
        self.heads = nn.ModuleDict()
        skips = [(0, PRE_CHANNELS), *zip(self.encoder.levels, self.encoder.channels, strict=True)]
        below, channels = skips.pop()
        while skips:
            level, skip_channels = skips.pop()
            # Named by level, so that networks of different depth have the same names for the same thing.
            self.decoder[f"level{level}"] = DecoderBlock(plan, channels, skip_channels, level, below)
            below, channels = level, plan.decoder_width(level)
            if plan.deep_supervision and level:
                self.heads[f"level{level}"] = conv(plan.dims, channels, plan.num_outputs, [1] * plan.dims, True)
        self.head = conv(plan.dims, channels, plan.num_outputs, kernel, bias=True)

    def forward(self, x: Tensor) -> Tensor | list[Tensor]:
        """(B, C, *spatial) -> logits (B, K, *spatial), for spatial axes of any size.

        In training with deep supervision: a list of logits, full resolution first, then the coarser levels of the
        decoder.
        """
        full = self.pre(x)
        features = self.encoder(full if self.plan.network == "paper" else x)
        skips, x = [full, *features[:-1]], features[-1]
        coarse: list[Tensor] = []
        for name, block in self.decoder.items():
            x = block(x, skips.pop())
            if self.training and name in self.heads:
                coarse.insert(0, self.heads[name](x))
        logits: Tensor = self.head(x)
        return [logits, *coarse] if coarse else logits

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the features of the encoder; see `SegmentationNetwork.encode`."""
        features: list[Tensor] = self.encoder(self.pre(x) if self.plan.network == "paper" else x)
        return features

    def image_layers(self) -> set[str]:
        """Return the names of the weights of the pre-block and, if the stem gets the image, of the stem."""
        stem = set() if self.plan.network == "paper" else {f"{self.encoder_prefix}{self.encoder.first_conv}.weight"}
        return {"pre.conv.weight"} | stem
