"""The imaged part of a case. Where all channels are 0, nothing was imaged: this is background and is not predicted.

This applies only to plans that normalise within the mask of non-zero voxels, and follows the rule by which cases are
cropped.
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

CERTAIN = 30.0  # logit of background outside the body: all other labels have a probability below 1e-12


@dataclass(frozen=True)
class Body:
    """The imaged part of a case.

    Attributes:
        inside: Mask (Z, Y, X) in the network's grid; False where the result does not depend on any imaged voxel.
        outside: Logits (K,) of background.
    """

    inside: npt.NDArray[np.bool_]
    outside: Tensor

    def touches(self, corner: tuple[int, int, int], patch: Shape) -> bool:
        """Whether a tile contains imaged voxels; `corner` may be negative where the image was padded."""
        z, y, x = (slice(max(0, start), start + n) for start, n in zip(corner, patch, strict=True))
        return bool(self.inside[z, y, x].any())


def find_body(image: np.ndarray, placement: Placement, plan: Plan) -> Body | None:
    """Return the imaged part of a case, or None if the plan does not normalise within a mask.

    Args:
        image: Image as read, shape (C, Z, Y, X).
        placement: Placement of the case.
        plan: Plan of the dataset: axis order, normalisation and labels.
    """
    if not any(scheme.inside_mask for scheme in plan.normalization):
        return None
    inside = (crop(placement.change.apply(image), placement.box) != 0).any(axis=0)
    for axis, new in enumerate(placement.shape):
        inside = _resample_mask(inside, axis, new)
    labels = plan.labels
    outside = torch.full((labels.num_outputs,), -CERTAIN)
    if not labels.has_regions:
        outside[0] = CERTAIN
    return Body(inside, outside)


def _resample_mask(inside: npt.NDArray[np.bool_], axis: int, new: int) -> npt.NDArray[np.bool_]:
    """Resample an axis to `new` voxels: True where any voxel within the reach of interpolation was True."""
    old = inside.shape[axis]
    scale = old / new
    margin = math.ceil(scale)  # restoring interpolates between neighbouring new voxels
    slices = []
    for index in range(new):
        lo, hi = max(0, math.floor(index * scale) - margin), math.ceil((index + 1) * scale) + margin
        slices.append(inside[(slice(None),) * axis + (slice(lo, hi),)].any(axis=axis))
    return np.stack(slices, axis=axis)
