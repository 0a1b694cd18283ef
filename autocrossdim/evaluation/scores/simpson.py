"""Volume of the left ventricle by Simpson's biplane rule, from its masks in the apical views of two and four chambers.

The rule is that of the organisers of CAMUS (script_camus_ef.ipynb, read from copies in public repositories): 20 discs
perpendicular to the long axis, which runs from the middle of the base to the point farthest from it. With the diameters
a and b of a disc in the two views, and its height h, the volume is pi / 4 x h x the sum of a x b. The height is a
twentieth of the longest of all axes of a patient, at end diastole and at end systole, so both volumes use the same one.

Two deviations: of a mask in several parts, only the largest is used (theirs takes the one that comes first in the
image), and volumes are not rounded to whole millilitres.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from skimage.measure import find_contours
from skimage.measure import label as connected_components

from autocrossdim.evaluation.interval import Floats
from autocrossdim.evaluation.metrics import Mask

DISCS = 20
MM3_PER_ML = 1000.0
BASE_ANGLE = 45.0  # largest angle in degrees between the base and the rows of the image
BASE_DEVIATION = 8.0  # pixels by which the contour may deviate from a straight base
START, STEP = 8.0, 0.5  # pixels from the axis at which the end of a disc is looked for, and how far apart
PROBES = 16  # points of a stretch of contour that are tried before all of them are


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
    """Return the long axis and the diameters of the left ventricle in one view; None if the mask has no base.

    The base is the longest stretch of the contour that is nearly straight and nearly horizontal, with the ventricle
    above it: the transducer, and so the apex, is at the first row of the image.

    Args:
        mask: Cavity of the left ventricle, shape `(Y, X)`.
        spacing: Pixel spacing in mm (y, x).
    """
    if not mask.any():
        return None
    pixel = min(spacing)
    mask = np.pad(_isotropic(_largest(mask), spacing), 1)
    contour: Floats = max(find_contours(mask.astype(float), 0.5), key=len)
    ends = _base(contour)
    if ends is None:
        return None
    middle = contour[ends[0] + round((ends[1] - ends[0]) / 2)]
    to_apex = contour[np.argmax(np.linalg.norm(contour - middle, axis=1))] - middle
    length = float(np.linalg.norm(to_apex))
    normal = np.array([-to_apex[1], to_apex[0]]) / length
    centres = middle + np.arange(DISCS)[:, None] / DISCS * to_apex
    diameters = [sum(_reach(mask, centre, side * normal) for side in (1, -1)) for centre in centres]
    return View(length * pixel, np.array(diameters) * pixel)


def volume(first: View, second: View, *, lengths: Iterable[float] = ()) -> float:
    """Return the volume in ml.

    Args:
        first: The ventricle in one view.
        second: The ventricle in the other view at the same time.
        lengths: Lengths of the axes at other times; the longest of all decides the height of the discs.
    """
    height = max(first.length, second.length, *lengths) / DISCS
    return math.pi / 4 * height * float(first.diameters @ second.diameters) / MM3_PER_ML


def _largest(mask: Mask) -> Mask:
    components = connected_components(mask, connectivity=2)
    largest: Mask = components == 1 + np.argmax(np.bincount(components.ravel())[1:])
    return largest


def _isotropic(mask: Mask, spacing: Sequence[float]) -> Mask:
    """Return the mask with square pixels of the smaller spacing, by nearest neighbours."""
    new = [round(n * step / min(spacing)) for n, step in zip(mask.shape, spacing, strict=True)]
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(int) for n, old in zip(new, mask.shape, strict=True))
    square: Mask = mask[np.ix_(rows, columns)]
    return square


def _base(contour: Floats) -> tuple[int, int] | None:
    """Return the ends of the base as indices of contour points; None if there is none."""
    best, ends = 0.0, None
    for last in range(2, len(contour)):
        to_first = contour[:last] - contour[last]
        lengths = np.linalg.norm(to_first, axis=1)
        angles = np.degrees(np.abs(np.arctan2(to_first[:, 0], to_first[:, 1])))
        longer = np.flatnonzero((angles <= BASE_ANGLE) & (lengths > best))
        if not len(longer):
            continue
        probes = (longer[:, None] + np.linspace(0, 1, PROBES) * (last - longer)[:, None]).astype(int)
        straight = _deviation(contour[probes] - contour[last], to_first[longer], lengths[longer])
        candidates = longer[straight.max(axis=1) <= BASE_DEVIATION]
        for first in candidates[np.argsort(-lengths[candidates], kind="stable")]:
            between = contour[None, first + 1 : last] - contour[last]
            if (_deviation(between, to_first[[first]], lengths[[first]]) <= BASE_DEVIATION).all():
                best, ends = float(lengths[first]), (int(first), last)
                break
    return ends


def _deviation(points: Floats, chords: Floats, lengths: Floats) -> Floats:
    """Return the distance of points (N, P, 2) from N lines through the origin, given by vectors and their lengths."""
    distance: Floats = np.abs(points[..., 0] * chords[:, None, 1] - points[..., 1] * chords[:, None, 0])
    return distance / lengths[:, None]


def _reach(mask: Mask, centre: Floats, direction: Floats) -> float:
    """Return how many pixels the mask reaches from a point on the long axis in one direction."""
    distances = np.arange(START, math.hypot(*mask.shape), STEP)
    rows, columns = np.round(centre + distances[:, None] * direction).astype(int).T
    inside = (rows >= 0) & (columns >= 0) & (rows < mask.shape[0]) & (columns < mask.shape[1])
    inside[inside] = mask[rows[inside], columns[inside]]
    return float(distances[np.argmin(inside)])
