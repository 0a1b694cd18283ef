"""The result of prediction: label values on the grid of the image, and what else was asked for."""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk

from autocrossdim.data.geometry import Geometry
from autocrossdim.data.itk import to_itk
from autocrossdim.inference.uncertainty import Uncertainty
from autocrossdim.records.likeness import Familiarity


@dataclass(repr=False)
class Segmentation:
    """A segmentation on the grid of its image.

    Attributes:
        label: Label values, shape (Z, Y, X).
        geometry: Geometry of the image.
        probabilities: Probabilities of the network's outputs, shape (K, Z, Y, X), float16; None unless requested.
        uncertainty: Maps and numbers; None unless requested.
        familiarity: How like the training data the image is; None if the model has no reference cases.
    """

    label: np.ndarray
    geometry: Geometry
    probabilities: np.ndarray | None = None
    uncertainty: Uncertainty | None = None
    familiarity: Familiarity | None = None

    def __repr__(self) -> str:
        shape = " × ".join(map(str, self.label.shape))
        spacing = " × ".join(f"{mm:.3g}" for mm in self.geometry.spacing)
        return f"<Segmentation: {shape} voxels of {spacing} mm (z, y, x)>"

    def to_sitk(self) -> sitk.Image:
        """Return the label values as a SimpleITK image with the geometry of the input; 2D if the input was."""
        return to_itk(self.label, self.geometry)
