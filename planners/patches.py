"""Patches that a network can be trained on, each with the network's topology."""

from collections.abc import Collection
from dataclasses import dataclass
from math import prod

import numpy as np

from autocrossdim.records.network import Kind
from autocrossdim.records.plan import MAX_AXIS, MAX_PATCH
from planners.topology import Topology, padded, topology

PATCH_STEPS = 32  # sizes tried between the median shape and the smallest patch
SMALLEST_SIDE = 16  # voxels along the finest axis of the smallest patch that is tried
DS_DEPTH = 5  # slices of the thinnest patch that DS-Net can compress to three


@dataclass(frozen=True)
class PlannedPatch:
    """A patch (voxels per axis) and the topology that suits it."""

    patch: tuple[int, ...]
    topology: Topology


def padded_patch(
    shape: tuple[int, ...], spacing: tuple[float, ...], *, depths: Collection[int], kind: Kind = "unet"
) -> PlannedPatch:
    """Return the smallest patch that contains `shape` and is a multiple of its own total stride.

    Args:
        shape: Requested shape in voxels.
        spacing: Spacing in mm per axis.
        depths: Numbers of levels at which the encoder can end.
        kind: Kind of the network; DS-Net needs at least five slices.
    """
    if kind == "ds":
        shape = (max(DS_DEPTH, shape[0]), *shape[1:])
        # Its encoder is 2D, so only the in-plane axes are halved.
        flat = topology(shape[1:], spacing[1:], max(depths)).ending_at(depths)
        levels = Topology(tuple((1, *s) for s in flat.strides), tuple((3, *k) for k in flat.kernel_sizes))
    else:
        levels = topology(shape, spacing, max(depths)).ending_at(depths)
    return PlannedPatch(padded(shape, levels.total_stride), levels)


def descending_patches(
    shape: tuple[int, ...], spacing: tuple[float, ...], *, depths: Collection[int], kind: Kind = "unet"
) -> list[PlannedPatch]:
    """Return patches from the median shape downwards.

    A patch is a cube in mm, clipped to the image, and padded no further than its strides require.

    Args:
        shape: Median shape in voxels.
        spacing: Spacing in mm per axis.
        depths: Numbers of levels at which the encoder can end.
        kind: Kind of the network.
    """
    extent = [n * mm for n, mm in zip(shape, spacing, strict=True)]
    smallest = min(SMALLEST_SIDE * min(spacing), max(extent))
    found: list[PlannedPatch] = []
    for side in np.geomspace(max(extent), smallest, PATCH_STEPS):
        # The tolerance keeps the first side, which is the image's own, from being rounded down.
        clipped = tuple(int(min(n, max(1, side / mm + 1e-6))) for n, mm in zip(shape, spacing, strict=True))
        smaller = padded_patch(clipped, spacing, depths=depths, kind=kind)
        if smaller not in found and prod(smaller.patch) <= MAX_PATCH and max(smaller.patch) <= MAX_AXIS:
            found.append(smaller)
    return found
