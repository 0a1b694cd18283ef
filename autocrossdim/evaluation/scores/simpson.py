"""Volume of the left ventricle by Simpson's biplane rule, from its masks in the apical views of two and four chambers.

Each view is cut into 20 discs perpendicular to the long axis, from the base to the apex. With the diameters a and b of
a disc in the two views, and the length L of the longer axis, the volume is pi / 4 x L / 20 x the sum of a x b (Lang et
al., Recommendations for cardiac chamber quantification, J. Am. Soc. Echocardiogr. 28 (2015) 1-39).
"""

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from skimage.measure import label as connected_components

from autocrossdim.evaluation.interval import Floats
from autocrossdim.evaluation.metrics import Mask

DISCS = 20
MM3_PER_ML = 1000.0

SUBPIXELS = 4
"""Points per pixel and axis. A disc of 4 mm is only about 10 pixels high, and pixels are assigned to one disc each."""


@dataclass(frozen=True)
class View:
    """The left ventricle in one view.

    Attributes:
        length: Length of the long axis in mm.
        diameters: Diameters of the discs in mm, shape `(20,)`, from the base to the apex.
    """

    length: float
    diameters: Floats


def view(mask: Mask, spacing: tuple[float, ...]) -> View | None:
    """Return the long axis and the diameters of the left ventricle in one view; None if the mask is empty.

    Only the largest component of the mask is used. The apex is the end nearer to the transducer, which is at the first
    row of the image. The hinge points of the mitral annulus are the two corners of the mask's base: the points that
    are farthest along the diagonals between the principal axis and its normal. The apex is the point farthest from
    the midpoint of the hinge points, and the long axis runs from it through this midpoint to the border of the mask.
    A disc's diameter is its area in the mask divided by its height.

    Args:
        mask: Cavity of the left ventricle, shape `(Y, X)`.
        spacing: Pixel spacing in mm (y, x).
    """
    if not mask.any():
        return None
    points = _points(_largest(mask), spacing)
    base, apex = _long_axis(points, within=max(spacing) / 2)
    length = float(np.linalg.norm(base - apex))
    along = (points - base) @ ((apex - base) / length) / length
    areas, _ = np.histogram(along, DISCS, (0.0, 1.0))
    pixel = math.prod(spacing) / SUBPIXELS**2
    return View(length, areas * pixel / (length / DISCS))


def volume(first: View, second: View) -> float:
    """Return the volume in ml."""
    height = max(first.length, second.length) / DISCS
    return math.pi / 4 * height * float(first.diameters @ second.diameters) / MM3_PER_ML


def _largest(mask: Mask) -> Mask:
    components = connected_components(mask, connectivity=2)
    largest: Mask = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
    return largest


def _points(mask: Mask, spacing: tuple[float, ...]) -> Floats:
    """Return the positions in mm of points spread evenly over the pixels of a mask, shape `(N, 2)`."""
    offsets = (np.arange(SUBPIXELS) + 0.5) / SUBPIXELS - 0.5
    grid = np.array(list(product(offsets, offsets)))
    points: Floats = (np.argwhere(mask)[:, None] + grid).reshape(-1, 2) * np.array(spacing)
    return points


def _long_axis(points: Floats, *, within: float) -> tuple[Floats, Floats]:
    """Return both ends of the long axis, base and apex, in mm. Points `within` mm of the axis count as on it."""
    centred = points - points.mean(axis=0)
    _, directions = np.linalg.eigh(centred.T @ centred)
    to_base = directions[:, -1] * np.sign(directions[0, -1] or 1.0)
    normal = np.array([-to_base[1], to_base[0]])
    hinges = [points[np.argmax(points @ (to_base + side * normal))] for side in (-1, 1)]
    midpoint: Floats = np.mean(hinges, axis=0)
    apex: Floats = points[np.argmax(np.linalg.norm(points - midpoint, axis=1))]
    axis = (midpoint - apex) / np.linalg.norm(midpoint - apex)
    offset = points - apex
    on_axis = np.abs(offset @ np.array([-axis[1], axis[0]])) <= within
    base: Floats = apex + axis * float((offset[on_axis] @ axis).max())
    return base, apex
