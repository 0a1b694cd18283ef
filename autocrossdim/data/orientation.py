"""Anatomical orientation: which way the axes of an array point, and bringing one array to the orientation of another.

An orientation is a code of three letters, the directions in which the indices of the axes (z, y, x) of an array grow:
`SPL` is superior, posterior, left, the order of an axial scan in DICOM coordinates. Scanners, archives and converters
store the same anatomy in any of the 48 orders and directions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
import numpy.typing as npt

# Negative and positive direction along each coordinate of ITK and DICOM: x grows to the left, y to the back, z upwards.
_DIRECTIONS = ("RL", "AP", "IS")
_AXIS_NAMES = {"RL": "left-right", "AP": "front-back", "IS": "top-bottom"}

AXIS_NAMES = tuple(_AXIS_NAMES.values())


def orientation_code(direction: Sequence[float]) -> str:
    """Return the orientation of an image; an oblique one gets that of the closest axes.

    Args:
        direction: ITK's direction matrix, nine entries row by row; column i is the direction of index axis i (x, y, z).
    """
    matrix = np.asarray(direction, float).reshape(3, 3)
    # The assignment of axes to coordinates with the largest agreement, so that no coordinate is used twice.
    order = max(permutations(range(3)), key=lambda rows: sum(abs(matrix[row, axis]) for axis, row in enumerate(rows)))
    letters = [_DIRECTIONS[row][int(matrix[row, axis] >= 0)] for axis, row in enumerate(order)]
    return "".join(reversed(letters))


def axis_name(letter: str) -> str:
    """Return the anatomical name of the axis that points in the direction `letter`: `left-right` for L or R."""
    return _AXIS_NAMES[_pair(letter)]


@dataclass(frozen=True)
class Reorientation:
    """A change of axis order and directions.

    Attributes:
        order: Old axis of each new axis.
        flipped: Whether each new axis is reversed.
    """

    order: tuple[int, int, int] = (0, 1, 2)
    flipped: tuple[bool, bool, bool] = (False, False, False)

    @classmethod
    def between(cls, old: str | None, new: str | None) -> "Reorientation":
        """Return the change from one orientation to another; none if either is unknown."""
        if old is None or new is None:
            return cls()
        order = [[_pair(letter) for letter in old].index(_pair(letter)) for letter in new]
        flipped = [old[axis] != letter for axis, letter in zip(order, new, strict=True)]
        return cls((order[0], order[1], order[2]), (flipped[0], flipped[1], flipped[2]))

    def then_transposed(self, transpose: tuple[int, int, int]) -> "Reorientation":
        """Return this change followed by a transposition (old axis of each new axis)."""
        a, b, c = transpose
        return Reorientation(
            (self.order[a], self.order[b], self.order[c]), (self.flipped[a], self.flipped[b], self.flipped[c])
        )

    def permuted(self, values: Sequence[Any]) -> tuple[Any, Any, Any]:
        """Return one value per old axis (a shape or a spacing) in the new order."""
        return values[self.order[0]], values[self.order[1]], values[self.order[2]]

    def apply(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view of an array (..., Z, Y, X) in the new order and directions."""
        lead = array.ndim - 3
        turned = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        return turned[(..., *(slice(None, None, -1 if flip else None) for flip in self.flipped))]

    def undo(self, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return a view of an array (..., Z, Y, X) in the old order and directions."""
        lead = array.ndim - 3
        turned = array[(..., *(slice(None, None, -1 if flip else None) for flip in self.flipped))]
        return turned.transpose(*range(lead), *(lead + int(axis) for axis in np.argsort(self.order)))


def _pair(letter: str) -> str:
    """Return the pair of directions that a letter belongs to; empty if none."""
    return next((pair for pair in _DIRECTIONS if letter in pair), "")
