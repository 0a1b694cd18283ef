"""Numbers by which a case is compared with the training data: from the image, and from the encoder's features."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from autocrossdim.inference.model import Model, ModelInput
from autocrossdim.inference.residence import Visiting
from autocrossdim.inference.sliding_window import some_tiles
from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.preprocessing.case import Placement
from autocrossdim.records.likeness import Familiarity, Floats, Likeness
from autocrossdim.system.device import memory_format_for

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
TILES = 8  # per case, spread over the image; more hardly change the mean over positions
VOXELS = 2**22  # of which intensities are measured; larger images are thinned out by slices
TINY = 1e-3  # of the spread of an encoder's feature or, relative to that of the image, of neighbouring voxels


def image_numbers(image: np.ndarray, placement: Placement) -> dict[str, Floats]:
    """Return the numbers of each measure of a preprocessed image.

    - `intensity`: quantiles of each channel after normalisation.
    - `texture`: logarithm of the mean second difference between neighbouring voxels within slices, relative to the
      standard deviation of the channel. Noise raises it, and blur lowers it.
    - `size`: logarithm of the extent of the imaged part in mm.
    - `spacing`: logarithm of the voxel spacing in mm, before resampling.

    Args:
        image: Preprocessed image, shape (C, Z, Y, X).
        placement: Placement of the case.
    """
    thinned = image[:, :: math.ceil(image[0].size / VOXELS)].astype(np.float32)
    extent = [voxels * mm for voxels, mm in zip(placement.cropped_shape, placement.spacing, strict=True)]
    return {
        "intensity": np.quantile(thinned, QUANTILES, axis=(1, 2, 3)).T.ravel(),
        "texture": np.array([_texture(channel) for channel in thinned]),
        "size": np.log(extent),
        "spacing": np.log(placement.spacing),
    }


@torch.inference_mode()
def feature_numbers(model: Model, image: np.ndarray) -> dict[str, Floats]:
    """Return how strongly the deepest features of each network vary over a case, by `CONFIGURATION/fold_K`.

    These are logarithms of standard deviations over space, one per channel of the encoder. On held-out, inverted and
    reoriented images they separated better than means over space and than finer features did.

    Args:
        model: Folds of one configuration. Networks without an encoder are left out.
        image: Preprocessed image, shape (C, Z, Y, X).
    """
    tiles = list(some_tiles(torch.from_numpy(image), model.window(mirroring=False), TILES))
    return {
        f"{model.configuration.name}/fold_{fold}": _spread(network, tiles)
        for fold, network in zip(model.folds, map(_unwrapped, model.networks), strict=False)
        if isinstance(network, SegmentationNetwork)
    }


def compare_with_training(likeness: Likeness, models: Sequence[Model], cases: Sequence[ModelInput]) -> Familiarity:
    """Return how like the training data a case is.

    Args:
        likeness: What the training data are like.
        models: The models that segment the case.
        cases: The case as preprocessed for each of them.
    """
    features: dict[str, Floats] = {}
    for model, case in zip(models, cases, strict=True):
        features |= feature_numbers(model, case.image)
    names = [model.configuration.name for model in models]
    measured = cases[names.index(likeness.configuration)]
    image = measured.image[: len(models[0].plan.channel_names)]  # without the previous stage of a cascade
    return likeness.compare(image_numbers(image, measured.placement), features)


def _texture(channel: np.ndarray) -> float:
    differences = [np.abs(np.diff(channel, n=2, axis=axis)) for axis in (1, 2) if channel.shape[axis] > 2]
    total, count = (sum(map(measure, differences)) for measure in (np.sum, np.size))
    spread = max(float(channel.std()), 1e-8)
    return math.log(max(float(total) / max(count, 1) / spread, TINY))


def _spread(network: SegmentationNetwork, tiles: list[torch.Tensor]) -> Floats:
    device = next(network.parameters()).device
    positions = []
    for tile in tiles:
        # In float32 on every device, so that GPU and CPU agree.
        batch = tile[None].to(device, torch.float32).contiguous(memory_format=memory_format_for(tile.ndim - 1))
        positions.append(network.encode(batch)[-1].movedim(1, -1).flatten(0, -2))
    spread = torch.cat(positions).std(dim=0, correction=0)
    numbers: Floats = (spread + TINY).log().cpu().double().numpy()  # not every GPU has float64
    return numbers


def _unwrapped(network: nn.Module) -> nn.Module:
    return network.network if isinstance(network, Visiting) else network
