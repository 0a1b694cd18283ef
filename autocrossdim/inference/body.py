"""Where the image is 0 because nothing was imaged: background for certain, so no tile there is predicted.

Only where the plan knows that zeros mean this (it then normalises inside the mask of what is not 0), and by the rule
by which cases are cropped: a voxel is outside where all channels are 0.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autocrossdim.preprocessing.case import Placement
from autocrossdim.preprocessing.crop import crop
from autocrossdim.preprocessing.resample import Shape
from autocrossdim.records.plan import Plan

CERTAIN = 30.0  # a logit: what else it might be has a probability below 1e-12


@dataclass(frozen=True)
class Body:
    """What was imaged.

    Attributes:
        inside: (Z, Y, X) in the network's grid: False where no imaged voxel has any share in the result.
        outside: logits (K,) of background.
    """

    inside: npt.NDArray[np.bool_]
    outside: Tensor

    def touches(self, corner: tuple[int, int, int], patch: Shape) -> bool:
        """Whether a tile holds anything that was imaged; `corner` may lie before the image's own."""
        z, y, x = (slice(max(0, start), start + n) for start, n in zip(corner, patch, strict=True))
        return bool(self.inside[z, y, x].any())


def find_body(image: np.ndarray, placement: Placement, plan: Plan) -> Body | None:
    """Return what was imaged of a case, or None if the plan does not know that 0 is outside.

    Args:
        image: shape (C, Z, Y, X), as read.
        placement: of the case.
        plan: gives axis order, normalisation and labels.
    """
    if not any(scheme.inside_mask for scheme in plan.normalization):
        return None
    turned = image.transpose(0, *(axis + 1 for axis in placement.transpose))
    inside = (crop(turned, placement.box) != 0).any(axis=0)
    for axis, new in enumerate(placement.shape):
        inside = _reached(inside, axis, new)
    labels = plan.labels
    outside = torch.full((labels.num_outputs,), -CERTAIN)
    if not labels.has_regions:
        outside[0] = CERTAIN
    return Body(inside, outside)


def _reached(inside: npt.NDArray[np.bool_], axis: int, new: int) -> npt.NDArray[np.bool_]:
    """Change the axis to `new` voxels: True where one that reaches as far as interpolation does was True."""
    old = inside.shape[axis]
    scale = old / new
    margin = math.ceil(scale)  # a voxel of the original grid interpolates between neighbours of the new one
    slices = []
    for index in range(new):
        lo, hi = max(0, math.floor(index * scale) - margin), math.ceil((index + 1) * scale) + margin
        slices.append(inside[(slice(None),) * axis + (slice(lo, hi),)].any(axis=axis))
    return np.stack(slices, axis=axis)
