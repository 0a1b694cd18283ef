"""How much training patches are changed.

With `STANDARD`, probabilities and ranges are those of nnU-Net 2.8.1 (`nnUNetTrainer.get_training_transforms`). `STRONG`
changes more patches, and further.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Strength:
    """How often, and how far, a patch is changed.

    Attributes:
        affine: Probability of a rotation, and of a scaling.
        scales: Smallest and largest factor of a scaling.
        elastic: Probability of an elastic deformation.
        brightness: Probability of another brightness.
        contrast: Probability of another contrast.
        contrasts: Smallest and largest factor of the contrast.
        gamma: Probability of a gamma correction.
        gammas: Smallest and largest exponent.
    """

    affine: float = 0.2
    scales: tuple[float, float] = (0.7, 1.4)
    elastic: float = 0.0
    brightness: float = 0.15
    contrast: float = 0.15
    contrasts: tuple[float, float] = (0.75, 1.25)
    gamma: float = 0.3
    gammas: tuple[float, float] = (0.7, 1.5)


STANDARD = Strength()
STRONG = Strength(
    affine=0.6,
    scales=(0.5, 1.6),
    elastic=0.3,
    brightness=0.5,
    contrast=0.5,
    contrasts=(0.5, 1.5),
    gamma=0.7,
    gammas=(0.4, 2.0),
)
STRENGTHS = {"standard": STANDARD, "strong": STRONG}
