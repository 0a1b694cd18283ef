"""The choices that make a network, and the part of a plan that describes one. Imports no torch."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

Inflation = Literal["center", "average", "replicate", "acs"]
Kind = Literal["unet", "ds", "plain"]

NO_ENCODER = "none"
"""Encoder of a plain U-Net, which has no pretrained part."""

PRE_CHANNELS = 16
"""Channels of the block at full resolution that precedes the encoder (the paper)."""


class NetworkChoices(BaseModel):
    """What a user may choose about a network.

    Declared once: the options of the planner, the configurations of a plan, the command line with its help, and the
    reference page all derive from these fields.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: str = Field("efficientnet_b0", description="timm name of the encoder, a convolutional network.")
    network: Literal["default", "paper"] = Field(
        "default",
        description="`default`: the pretrained stem receives the image directly; `paper`: the published networks.",
    )
    inflation: Inflation = Field("center", description="Rule by which 2D kernels become 3D kernels.")
    slices: Literal[1, 3] = Field(1, description="Number of neighbouring slices that a 2D network takes as channels.")
    deep_supervision: bool = Field(False, description="Also apply the loss at the coarser levels of the decoder.")


class NetworkPlan(NetworkChoices):
    """Everything that is needed to build a network, and nothing else.

    Axes are in array order: (Z, Y, X) in 3D, (Y, X) in 2D. Axis 0 of a 3D array is the coarsest one, along which 2D
    weights are inflated. Levels are counted from full resolution, which is level 0; the i-th stride leads to level i.

    Attributes:
        kind: `unet` is Omnia-Net (2D) or DX-Net (3D); `ds` is DS-Net, 3D -> 2D -> 3D; `plain` is a U-Net without
            pretrained weights, whose encoder is `none`.
        dims: Number of spatial axes of the input.
        in_channels: Number of channels of the input.
        mask_channels: Number of channels, the last ones, that are masks of a previous stage instead of images.
        num_outputs: Number of channels of the logits.
        strides: Stride per axis, 1 or 2, of each level below full resolution; the first is that of the stem. An encoder
            with more levels ends at the last one given. An entry of ones keeps a level without its stride.
        kernel_sizes: Kernel extent per axis of each level from 0 on: 1 for kernels without extent along the axis, 3 for
            the encoder's own kernels (3 in the decoder).
        decoder_widths: Number of channels of the decoder's blocks, deepest first; the last `len(strides)` are used.
        up: How the decoder upsamples features: `nearest` by default, `transpose` in the paper's 3D network.
        drop_path: Stochastic depth: rate of the last block, increasing linearly from 0. Default 0; 0.4 in the paper's
            networks.
        depth: Depth of the patch in voxels, from which the depth strides of DS-Net follow; None for other networks.
    """

    kind: Kind = "unet"
    dims: Literal[2, 3]
    in_channels: PositiveInt
    mask_channels: NonNegativeInt = 0
    num_outputs: PositiveInt
    strides: list[list[Literal[1, 2]]]
    kernel_sizes: list[list[Literal[1, 3]]]
    decoder_widths: list[PositiveInt] = [256, 128, 64, 32, 16]
    up: Literal["nearest", "transpose"] = "nearest"
    drop_path: float = 0.0
    depth: PositiveInt | None = None

    @classmethod
    def of(
        cls,
        choices: Mapping[str, Any],
        *,
        kind: Kind,
        channels: int,
        masks: int,
        num_outputs: int,
        patch: Sequence[int],
        strides: Iterable[Iterable[int]],
        kernel_sizes: Iterable[Iterable[int]],
    ) -> "NetworkPlan":
        """Return the network that processes patches of a dataset.

        Args:
            choices: Fields of `NetworkChoices` by name; a network with 3 `slices` has three times the channels.
            kind: As the attribute.
            channels: Number of image channels of a case.
            masks: Number of masks of a previous stage, which are further channels.
            num_outputs: As the attribute.
            patch: Patch size in voxels.
            strides: As the attribute.
            kernel_sizes: As the attribute.
        """
        return cls.model_validate(
            {
                **choices,
                "kind": kind,
                "dims": len(patch),
                "in_channels": channels * choices["slices"] + masks,
                "mask_channels": masks,
                "num_outputs": num_outputs,
                "strides": [list(stride) for stride in strides],
                "kernel_sizes": [list(kernel) for kernel in kernel_sizes],
                "depth": patch[0] if kind == "ds" else None,
            }
        )

    @model_validator(mode="before")
    @classmethod
    def _preset_defaults(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("network") == "paper":
            dx = values.get("dims") == 3 and values.get("kind", "unet") == "unet"
            return {"up": "transpose" if dx else "nearest", "drop_path": 0.4} | values
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.mask_channels >= self.in_channels:
            raise ValueError("mask_channels: at least one channel of the input must be an image")
        levels = len(self.strides)
        if not levels:
            raise ValueError("strides: at least one level is needed")
        if len(self.kernel_sizes) != levels + 1:
            raise ValueError(
                f"kernel_sizes: {levels} strides need {levels + 1} entries, one per level from full "
                f"resolution on, not {len(self.kernel_sizes)}"
            )
        if {len(entry) for entry in self.strides} | {len(entry) for entry in self.kernel_sizes} != {self.dims}:
            raise ValueError(f"strides and kernel_sizes: every entry needs {self.dims} numbers, one per axis")
        if self.kind != "plain" and len(self.decoder_widths) < levels:
            raise ValueError(f"decoder_widths: {levels} strides need at least {levels} widths")
        if self.kind == "ds" and (self.dims != 3 or self.depth is None or self.depth < 5):
            raise ValueError("a ds network needs dims = 3 and the patch's depth, 5 voxels or more")
        if (self.kind == "plain") != (self.encoder == NO_ENCODER):
            raise ValueError(f"encoder: a plain network, and no other, has the encoder '{NO_ENCODER}'")
        if self.kind == "ds" and any(entry[0] != 1 for entry in self.strides):
            raise ValueError("strides: a ds network's depth strides follow from its depth; set axis 0 to 1")
        return self

    @property
    def activation(self) -> Literal["relu", "silu"]:
        """Activation of the pre-block and the decoder: SiLU in the paper's DX-Net, else ReLU, as in its Omnia-Net."""
        return "silu" if self.network == "paper" and self.dims == 3 else "relu"

    def decoder_width(self, level: int) -> int:
        """Return the number of channels of the decoder block that ends at `level`."""
        return self.decoder_widths[-1 - level]

    @classmethod
    def paper(cls, kind: Literal["omnia", "dx", "ds"], in_channels: int, num_outputs: int, **changes: Any) -> Self:
        """Return one of the authors' networks: EfficientNet-B0 over five levels; for DS-Net, patches of depth 128.

        Args:
            kind: The network.
            in_channels: Number of channels of the input.
            num_outputs: Number of channels of the logits.
            changes: Fields with other values, such as `encoder="efficientnet_b4"`.
        """
        stride, kernel = {
            "omnia": ([2, 2], [3, 3]),
            "dx": ([2, 2, 2], [3, 3, 3]),
            "ds": ([1, 2, 2], [3, 3, 3]),
        }[kind]
        fields: dict[str, Any] = {
            "kind": "ds" if kind == "ds" else "unet",
            "network": "paper",
            "dims": len(stride),
            "encoder": "efficientnet_b0",
            "in_channels": in_channels,
            "num_outputs": num_outputs,
            "strides": [stride] * 5,
            "kernel_sizes": [kernel] * 6,
            "depth": 128 if kind == "ds" else None,
        }
        return cls.model_validate(fields | changes)
