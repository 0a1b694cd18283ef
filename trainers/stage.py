"""What a cascade sees of its previous stage in training: masks that are sometimes wrong, as they will be for new cases.

The previous stage has segmented the cases as held-out cases, but they resemble its training cases. As in nnU-Net,
masks are therefore changed by random binary operators, and lose connected components; here, all masks are also left
out at times.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.uint8]

# Reach of an operator in voxels. nnU-Net uses balls with a radius of 1 to 8 voxels. Boxes are separable and therefore
# fast; the largest has about the volume of its largest ball.
REACH = (1, 6)
_DILATE: Callable[..., Mask] = ndimage.maximum_filter
_ERODE: Callable[..., Mask] = ndimage.minimum_filter
OPERATORS = ((_DILATE,), (_ERODE,), (_ERODE, _DILATE), (_DILATE, _ERODE))  # the last two open and close
LARGEST_REMOVED = 0.15  # of a patch; a larger connected component is not removed (nnU-Net)


def perturb(
    masks: Mask,
    random: np.random.Generator,
    *,
    empty: float,
    morphology: float,
    component: float,
    exclusive: bool,
) -> None:
    """Change masks in place.

    Args:
        masks: One mask of 0 and 1 per label or region, shape (R, *patch).
        random: Source of randomness.
        empty: Probability that all masks are emptied.
        morphology: Probability, for each mask, that it is dilated, eroded, opened or closed.
        component: Probability, for each mask, that one of its connected components is removed.
        exclusive: Whether a voxel belongs to one mask at most, so that a mask that grows takes voxels from the others.
    """
    if random.random() < empty:
        masks[:] = 0
        return
    for index in random.permutation(len(masks)):
        if random.random() < morphology:
            _apply_operator(masks[index], random)
            if exclusive:
                masks[np.arange(len(masks)) != index] &= 1 - masks[index]
    for mask in masks:
        if random.random() < component:
            _remove_component(mask, random)


def _apply_operator(mask: Mask, random: np.random.Generator) -> None:
    """Dilate, erode, open or close a mask in place."""
    reach = int(random.integers(*REACH, endpoint=True))
    steps = OPERATORS[random.integers(len(OPERATORS))]
    found = ndimage.find_objects(mask)
    if found:
        # One more voxel than the mask can grow: the border is continued, and that of a grown mask must stay outside.
        margin = reach + 1
        box = tuple(slice(max(0, part.start - margin), part.stop + margin) for part in found[0])
        for step in steps:
            mask[box] = step(mask[box], size=2 * reach + 1, mode="nearest")


def _remove_component(mask: Mask, random: np.random.Generator) -> None:
    """Remove a random connected component that is not too large, in place."""
    components, _ = ndimage.label(mask, structure=np.ones([3] * mask.ndim))
    small = np.flatnonzero(np.bincount(components.ravel()) <= LARGEST_REMOVED * mask.size)
    small = small[small > 0]  # 0 is the background
    if len(small):
        mask[components == random.choice(small)] = 0
