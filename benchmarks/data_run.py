"""One training of `data.py`: where it reads and writes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_cases import case_names, halves


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        data: Directory of the datasets.
        weights: File with encoder weights, named after the encoder.
        folder: Directory of all arms of the seed.
        seed: Seed of the cases, of what is annotated in them, and of the training.
        epochs: Number of epochs.
        arm: Name of the arm.
    """

    data: Path
    weights: Path
    folder: Path
    seed: int
    epochs: int
    arm: str

    def of(self, arm: str) -> Path:
        """Return the directory of an arm of the same seed."""
        return self.folder / arm.replace(",", "").replace(" ", "_")

    @property
    def path(self) -> Path:
        """Directory of this training."""
        return self.of(self.arm)

    @property
    def names(self) -> list[str]:
        """All labelled training cases of Hippocampus, sorted."""
        return case_names(self.data)

    @property
    def pool(self) -> list[str]:
        """The 16 cases of Hippocampus to train on, in the order of the seed."""
        return halves(self.data, self.seed)[0]

    @property
    def held_out(self) -> list[str]:
        """The other 16 cases, the same for every seed."""
        return halves(self.data, self.seed)[1]


Arm = Callable[[Run], dict[str, Any]]
"""What is measured of one training."""
