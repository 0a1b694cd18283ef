"""Cropping to the bounding box of nonzero voxels."""

import numpy as np

Box = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]


def nonzero_box(image: np.ndarray) -> Box:
    """Return the bounding box `((z0, z1), (y0, y1), (x0, x1))` of the voxels that are nonzero in any channel.

    nnU-Net's rule; nnU-Net fills holes first, which cannot change the box. The box of an image of zeros is the complete
    image.

    Args:
        image: Image (C, Z, Y, X).
    """
    nonzero = (image != 0).any(axis=0)
    if not nonzero.any():
        z, y, x = nonzero.shape
        return (0, z), (0, y), (0, x)
    bounds = []
    for axis in range(3):
        inside = np.flatnonzero(nonzero.any(axis=tuple(a for a in range(3) if a != axis)))
        bounds.append((int(inside[0]), int(inside[-1]) + 1))
    return bounds[0], bounds[1], bounds[2]


def crop(array: np.ndarray, box: Box) -> np.ndarray:
    """Return a view of `array` (..., Z, Y, X), cropped to `box`."""
    (z0, z1), (y0, y1), (x0, x1) = box
    return array[..., z0:z1, y0:y1, x0:x1]


def box_shape(box: Box) -> tuple[int, int, int]:
    """Return the shape (Z, Y, X) of a box, in voxels."""
    (z0, z1), (y0, y1), (x0, x1) = box
    return z1 - z0, y1 - y0, x1 - x0
