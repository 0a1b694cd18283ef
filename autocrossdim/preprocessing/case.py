"""A case on its way from the original grid to the grid of the network, and what is needed to go back."""

import math
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from autocrossdim.data.orientation import Reorientation
from autocrossdim.preprocessing.crop import Box, box_shape, crop, nonzero_box
from autocrossdim.preprocessing.normalize import normalize
from autocrossdim.preprocessing.resample import Orders, Shape, orders_for, resample_image, resample_label, shape_for
from autocrossdim.records.plan import Configuration, Plan
from autocrossdim.system.errors import UserError
from autocrossdim.system.memory import total_memory

Spacing = tuple[float, float, float]

# Sizes that no scan has after resampling, but that a spacing in the wrong unit leads to: more voxels along an axis
# than a NIfTI file can hold, or 16 GiB per channel.
MAX_AXIS, MAX_VOXELS = 2**15, 2**32


class Placement(BaseModel):
    """Position of a preprocessed case in the original grid.

    Attributes:
        original_shape: Shape (Z, Y, X) of the image as read.
        transpose: Original axis of each axis in the plan's order.
        flipped: Whether each axis in the plan's order is reversed.
        box: Bounding box that was kept, in the plan's order.
        spacing: Spacing in mm before resampling, in the plan's order.
        target: Spacing in mm after resampling, in the plan's order.
        shape: Shape (Z, Y, X) after resampling.
    """

    model_config = ConfigDict(frozen=True)

    original_shape: Shape
    transpose: tuple[int, int, int]
    flipped: tuple[bool, bool, bool] = (False, False, False)
    box: Box
    spacing: Spacing
    target: Spacing
    shape: Shape

    @property
    def change(self) -> Reorientation:
        """The change from the original axes to those of the plan."""
        return Reorientation(self.transpose, self.flipped)

    @property
    def cropped_shape(self) -> Shape:
        """Shape (Z, Y, X) of the box, in the plan's order."""
        return box_shape(self.box)

    def orders(self, order: int) -> Orders:
        """Return the spline order per axis for resampling the box to the grid of the network, see `orders_for`."""
        return orders_for(order, self.spacing, self.target, self.cropped_shape[0])

    def orders_back(self, order: int) -> Orders:
        """Return the spline order per axis for resampling from the grid of the network to the box."""
        return orders_for(order, self.target, self.spacing, self.cropped_shape[0])

    def restore(self, cropped: np.ndarray) -> np.ndarray:
        """Put an array that fills the box (plan's order, original resolution) back on the original grid.

        Voxels that were cropped away are 0.

        Args:
            cropped: Array (..., Z, Y, X) with the shape of the box.
        """
        lead = cropped.shape[:-3]
        full = self.change.permuted(self.original_shape)
        result = np.zeros((*lead, *full), dtype=cropped.dtype)
        crop(result, self.box)[...] = cropped
        return self.change.undo(result)


@dataclass
class Preprocessed:
    """A preprocessed case, in the plan's order.

    Attributes:
        image: Image (C, Z, Y, X), float32.
        label: Label (Z, Y, X); None if there is none.
        placement: Position in the original grid.
        previous_stage: Label values (Z, Y, X) of the segmentation by the previous stage; None if there is none.
    """

    image: np.ndarray
    label: np.ndarray | None
    placement: Placement
    previous_stage: np.ndarray | None = None


def preprocess(
    image: np.ndarray,
    spacing: Spacing,
    plan: Plan,
    configuration: Configuration,
    label: np.ndarray | None = None,
    *,
    orientation: str | None = None,
    previous_stage: np.ndarray | None = None,
    overwrite: bool = False,
) -> Preprocessed:
    """Reorient, transpose, crop, normalise and resample one case.

    Args:
        image: Image (C, Z, Y, X), as read.
        spacing: Spacing in mm (z, y, x), as read.
        plan: Plan with axis order and normalisation.
        configuration: Configuration with the target spacing.
        label: Label (Z, Y, X), values as in the file.
        orientation: Orientation code of the image; that of the plan if None.
        previous_stage: Segmentation (Z, Y, X) by the previous stage of a cascade, values as in the file.
        overwrite: Whether `image` may be changed, which saves memory.

    Raises:
        UserError: At the plan's spacing, the image would be larger than any scan, or than half of the memory.
    """
    change = Reorientation.between(orientation, plan.orientation).then_transposed(plan.transpose)
    original_shape = image.shape[1], image.shape[2], image.shape[3]
    image = change.apply(image)
    z, y, x = change.permuted(spacing)
    box = nonzero_box(image)
    image = normalize(crop(image, box), list(plan.normalization), overwrite=overwrite)
    target = configuration.target_spacing((z, y, x))
    shape = shape_for(box_shape(box), (z, y, x), target)
    _require_plausible(len(image), shape, (z, y, x), target)
    placement = Placement(
        original_shape=original_shape,
        transpose=change.order,
        flipped=change.flipped,
        box=box,
        spacing=(z, y, x),
        target=target,
        shape=shape,
    )
    image = resample_image(image, shape, placement.orders(3))

    def resampled(values: np.ndarray | None) -> np.ndarray | None:
        if values is None:
            return None
        cropped = np.ascontiguousarray(crop(change.apply(values), box))
        return resample_label(cropped, shape, placement.orders(1))

    return Preprocessed(image, resampled(label), placement, resampled(previous_stage))


def _require_plausible(channels: int, shape: Shape, spacing: Spacing, target: Spacing) -> None:
    """Refuse an image that would be too large after resampling to `shape`, before memory is allocated."""
    resampled = (
        "a spacing of {:g} x {:g} x {:g} mm; the plan's is {:g} x {:g} x {:g} mm, at which the image would have "
        "{} x {} x {} voxels"
    ).format(*spacing, *target, *shape)
    if max(shape) >= MAX_AXIS or math.prod(shape) > MAX_VOXELS:
        raise UserError(f"{resampled}. Fix the header: spacings are in mm.")
    size, memory = 4 * channels * math.prod(shape), total_memory()  # float32
    if memory is not None and 2 * size > memory:  # resampling and prediction need as much again
        raise UserError(
            f"{resampled}, {size / 1e9:,.1f} GB, which is more than half of the {memory / 1e9:,.1f} GB of memory. Fix "
            "the header if the spacing is wrong (spacings are in mm); else crop the image, or use a larger machine."
        )
