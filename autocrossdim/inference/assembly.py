"""Averaging the probabilities of several models slice by slice, and restoring the result to the original grid."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from autocrossdim.inference.restore import to_label
from autocrossdim.inference.uncertainty import Where, temper
from autocrossdim.preprocessing.case import Placement
from autocrossdim.records.labels import Labels


def average(slices: Sequence[Tensor]) -> Tensor:
    """Return the mean over models of their probabilities for one slice."""
    return torch.stack(list(slices)).mean(dim=0) if len(slices) > 1 else slices[0]


class Assembly:
    """Collects the slices of one case, in order, and restores the case to its original grid.

    Args:
        labels: Labels of the dataset.
        placement: Placement of the case; crop and axis order are the same for all models of a dataset.
        probabilities: Whether to keep the probabilities, as float16, besides the label values.
        temperature: Temperature of the probabilities that are kept; it does not affect the label values.

    Attributes:
        label: Label values of the cropped case, in the plan's axis order.
    """

    def __init__(
        self, labels: Labels, placement: Placement, *, probabilities: bool = False, temperature: float = 1.0
    ) -> None:
        self.labels, self.placement, self.temperature = labels, placement, temperature
        shape = placement.cropped_shape
        self.label = np.zeros(shape, dtype=np.min_scalar_type(labels.values[-1]))
        self._probabilities = np.zeros((labels.num_outputs, *shape), dtype=np.float16) if probabilities else None

    def add(self, where: Where, values: Tensor) -> None:
        """Add the probabilities (K, Y, X) of the lines `where` of a slice."""
        self.label[where] = to_label(values, self.labels)
        if self._probabilities is not None:
            self._probabilities[:, *where] = temper(values, self.labels, self.temperature).cpu().numpy()

    def restored_label(self) -> np.ndarray:
        """Return the label values on the original grid, shape (Z, Y, X)."""
        return self.placement.restore(self.label)

    def restored_probabilities(self) -> np.ndarray | None:
        """Return the probabilities on the original grid, shape (K, Z, Y, X); None if they were not kept."""
        if self._probabilities is None:
            return None
        probabilities = self.placement.restore(self._probabilities)
        if not self.labels.has_regions:  # what was cropped away is background
            outside = self.placement.restore(np.ones(self.label.shape, dtype=bool)) == 0
            probabilities[0][outside] = 1
        return probabilities
