"""2D encoder -> (inflation) -> encoder, decoder, head: Omnia-Net, DX-Net and DS-Net, and how weights get into them.

Names are looked up when first used, so that a process that builds no network does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocrossdim.networks.base import SegmentationNetwork
    from autocrossdim.networks.build import build_network
    from autocrossdim.networks.inflation import inflate
    from autocrossdim.networks.report import LoadReport
    from autocrossdim.networks.transfer import transfer
    from autocrossdim.networks.weights import EncoderWeights, resolve_weights

__all__ = [
    "EncoderWeights",
    "LoadReport",
    "SegmentationNetwork",
    "build_network",
    "inflate",
    "resolve_weights",
    "transfer",
]

_HOME = {
    "EncoderWeights": "weights",
    "LoadReport": "report",
    "SegmentationNetwork": "base",
    "build_network": "build",
    "inflate": "inflation",
    "resolve_weights": "weights",
    "transfer": "transfer",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
