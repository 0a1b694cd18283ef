"""What every segmentation network here has in common."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from autocrossdim.networks.architecture import arch_of, architecture
from autocrossdim.networks.report import LoadReport
from autocrossdim.records.network import NetworkPlan

_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


class SegmentationNetwork(nn.Module):
    """From (B, C, *spatial) to logits (B, K, *spatial).

    Attributes:
        plan: Plan that the network was built from.
        load_report: Where its parameters came from.
        encoder_prefix: Prefix of the names of the encoder's parameters.
    """

    encoder_prefix = "encoder."
    load_report: LoadReport

    def __init__(self, plan: NetworkPlan) -> None:
        super().__init__()
        self.plan = plan

    def to(self, *args: Any, memory_format: torch.memory_format | None = None, **kwargs: Any) -> "SegmentationNetwork":
        """As `nn.Module.to`, but a channels-last format is each weight's own.

        torch refuses `channels_last_3d` where a 3D network holds 2D kernels, as by `acs` and in DS-Net.
        """
        if args or kwargs:
            super().to(*args, **kwargs)
        if memory_format is not None:
            plain = memory_format not in _CHANNELS_LAST.values()
            for parameter in self.parameters():
                if parameter.ndim in _CHANNELS_LAST:
                    own = memory_format if plain else _CHANNELS_LAST[parameter.ndim]
                    # Not `contiguous`: it leaves a weight of one input channel as it is, which is in either format,
                    # and everything that follows the layer then stays in the plain one.
                    parameter.data = torch.empty_like(parameter, memory_format=own).copy_(parameter.data)
        return self

    def encoder_parameters(self) -> Iterator[nn.Parameter]:
        """Return the parameters of the encoder, without the paper's stem of 16 channels, which no weights fit.

        They follow from the plan alone, so that a resumed run has the parameter groups it was started with.
        """
        names = self._encoder_names()
        return (parameter for name, parameter in self.named_parameters() if name in names)

    def other_parameters(self) -> Iterator[nn.Parameter]:
        """Return all parameters that are not among `encoder_parameters`."""
        names = self._encoder_names()
        return (parameter for name, parameter in self.named_parameters() if name not in names)

    def _encoder_names(self) -> set[str]:
        names = {name for name, _ in self.named_parameters() if name.startswith(self.encoder_prefix)}
        if self.plan.network == "paper":
            names -= {f"{self.encoder_prefix}{architecture(arch_of(self.plan.encoder)).stem}.weight"}
        return names

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return the encoder's features of an input (B, C, *spatial), finest first.

        Each has shape (B', channels, *spatial / stride); DS-Net folds some of its channels into the batch.
        """
        raise NotImplementedError

    def image_layers(self) -> set[str]:
        """Return the names of the weights that take the channels of the image and can be adapted to other channels."""
        raise NotImplementedError
