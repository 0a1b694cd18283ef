"""What the cases of the training data are like, and how far from them an image may be: measured by `find_best`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_record, write_json

LEAST_GROUPS = 5  # held-out cases (patients); with fewer, the spread of their distances is hardly known
NEAREST = 3  # reference cases that a case is compared with

IMAGE_MEASURES = ("intensity", "texture", "size", "spacing")
FEATURES = "features"
WORDS = {"intensity": "intensity distribution", "size": "size in mm", FEATURES: "features of the network"}

Floats = NDArray[np.floating[Any]]


class Measure(BaseModel):
    """Reference cases of one measure, such as the size of the image.

    Attributes:
        centre: Mean of each number over the cases.
        deviation: Standard deviation of each number over the cases, with a lower bound.
        cases: The numbers of each case in units of the deviation, without names and in no particular order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    centre: tuple[float, ...]
    deviation: tuple[Annotated[float, Field(gt=0)], ...]
    cases: Annotated[tuple[tuple[float, ...], ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if {len(self.deviation), *map(len, self.cases)} != {len(self.centre)}:
            raise ValueError("centre, deviation and cases must hold the same number of numbers")
        return self

    def distance(self, numbers: Floats) -> float:
        """Return the mean distance of a case to the nearest reference cases, in standard deviations per number.

        Raises:
            UserError: The reference cases have another number of numbers, so they belong to another model.
        """
        if len(numbers) != len(self.centre):
            raise UserError(
                f"best.json contains reference cases of {len(self.centre)} numbers, but this model has {len(numbers)}. "
                "Run `autocrossdim find_best` again."
            )
        standardised = (np.asarray(numbers) - self.centre) / self.deviation
        distances = np.sqrt(((np.asarray(self.cases) - standardised) ** 2).mean(axis=1))
        return float(np.sort(distances)[:NEAREST].mean())


CONTRAST = " If only its contrast differs, --image-statistics 0.2 may help."


class Familiarity(BaseModel):
    """How like the training data a case is.

    Attributes:
        score: Largest distance in units of its limit; above 1, the case is unlike the training data.
        differs_in: Name of the measure with that distance.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    score: float
    differs_in: str

    @property
    def words(self) -> str:
        """Name of that measure in words."""
        return WORDS.get(self.differs_in, self.differs_in)

    @property
    def is_unlike(self) -> bool:
        """Whether the case is unlike the training data."""
        return self.score > 1

    def sentence(self, *, adapted: bool) -> str:
        """Return what to do about a case that is unlike the training data.

        Args:
            adapted: Whether batch norms adapted to the image.
        """
        may_be_contrast = self.differs_in in ("intensity", FEATURES)
        return (
            f"unlike the training data ({self.words}, {beyond_limit(self.score)}). Check the image, and treat "
            "this segmentation with caution."
            f"{'' if adapted or not may_be_contrast else CONTRAST}"
        )


def beyond_limit(score: float) -> str:
    """Return how far a distance above the limit is beyond it.

    Args:
        score: Distance in units of the limit.

    Example:
        >>> [beyond_limit(score) for score in (1.04, 1.06, 3.14)]
        ['just above the limit', '1.1 times the limit', '3.1 times the limit']
    """
    return f"{score:.1f} times the limit" if score >= 1.05 else "just above the limit"


class HeldOutCases(BaseModel):
    """How like the training data each held-out case is; kept beside the models, since it names the cases.

    Attributes:
        cases: Result by name of the case.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cases: dict[str, Familiarity]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read familiarity.json.

        Raises:
            UserError: The file cannot be read, or is damaged.
        """
        return read_record(cls, path, remedy="Run `autocrossdim find_best` again.")

    def write(self, path: Path) -> None:
        """Write familiarity.json."""
        write_json(path, self.model_dump())


class Likeness(BaseModel):
    """Reference cases, and the distance of each measure up to which a case is like them.

    Attributes:
        configuration: Configuration whose preprocessed images the measures of the image refer to.
        image: Measures of the image by name.
        features: Measures of the encoder's features, by `CONFIGURATION/fold_K`: each network has features of its own.
        limits: Largest usual distance by name of the measure, one for the features of all networks.
        n_cases: Number of held-out cases from which the limits were found.
        n_unlike: Number of these cases that are beyond a limit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    configuration: str
    image: dict[str, Measure]
    features: dict[str, Measure]
    limits: dict[str, Annotated[float, Field(gt=0)]]
    n_cases: int
    n_unlike: int

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.image.keys() != set(IMAGE_MEASURES):
            raise ValueError(f"the measures of the image must be {', '.join(IMAGE_MEASURES)}")
        if self.limits.keys() != {*self.image, *([FEATURES] if self.features else [])}:
            raise ValueError("every measure needs one limit")
        return self

    def compare(self, image: Mapping[str, Floats], features: Mapping[str, Floats]) -> Familiarity:
        """Compare a case with the reference cases.

        Args:
            image: Numbers of each measure of the image.
            features: Numbers of the encoder's features, by `CONFIGURATION/fold_K`; networks without reference cases
                are left out. Distances are averaged over networks.
        """
        distances = {name: measure.distance(image[name]) for name, measure in self.image.items()}
        known = [self.features[key].distance(numbers) for key, numbers in features.items() if key in self.features]
        if known:
            distances[FEATURES] = float(np.mean(known))
        return familiarity(distances, self.limits)

    @property
    def sentence(self) -> str:
        """What is compared, in words."""
        return (
            f"New images are compared with the training data. Limits were found from {self.n_cases} held-out cases, of "
            f"which {self.n_unlike} would be flagged as unlike the training data."
        )


def familiarity(distances: Mapping[str, float], limits: Mapping[str, float]) -> Familiarity:
    """Return the largest distance in units of its limit, and what it is a distance in."""
    scores = {name: distance / limits[name] for name, distance in distances.items()}
    worst = max(scores, key=scores.__getitem__)
    return Familiarity(score=scores[worst], differs_in=worst)
