"""What a cascade sees of its previous stage in training: masks that are sometimes wrong, as they will be for new cases.

The previous stage has segmented the cases as held-out cases, but they resemble its training cases. nnU-Net therefore
applies random binary operators and removes connected components; here, all masks are also left out at times.
"""

import numpy as np
from scipy import ndimage

REACH = (1, 8)  # voxels by which a mask grows or shrinks (nnU-Net: structuring elements of these sizes)
LARGEST_REMOVED = 0.15  # of a patch; a larger connected component is not removed (nnU-Net)


def perturb(
    masks: np.ndarray, random: np.random.Generator, *, empty: float, morphology: float, component: float
) -> None:
    """Change masks in place.

    Args:
        masks: One mask of 0 and 1 per label or region, shape (R, *patch).
        random: Source of randomness.
        empty: Probability that all masks are emptied.
        morphology: Probability, for each mask, that it is dilated or eroded.
        component: Probability, for each mask, that one of its connected components is removed.
    """
    if random.random() < empty:
        masks[:] = 0
        return
    for mask in masks:
        if random.random() < morphology:
            _grow_or_shrink(mask, random)
        if random.random() < component:
            _remove_component(mask, random)


def _grow_or_shrink(mask: np.ndarray, random: np.random.Generator) -> None:
    """Dilate or erode a mask in place by a box, which is separable and therefore fast."""
    grow, reach = random.random() < 0.5, int(random.integers(*REACH, endpoint=True))
    found = ndimage.find_objects(mask)
    if found:
        box = tuple(slice(max(0, part.start - reach), part.stop + reach) for part in found[0])
        change = ndimage.maximum_filter if grow else ndimage.minimum_filter
        mask[box] = change(mask[box], size=2 * reach + 1, mode="nearest")


def _remove_component(mask: np.ndarray, random: np.random.Generator) -> None:
    components, count = ndimage.label(mask)
    if count:
        chosen = components == random.integers(1, count, endpoint=True)
        if chosen.sum() <= LARGEST_REMOVED * mask.size:
            mask[chosen] = 0
