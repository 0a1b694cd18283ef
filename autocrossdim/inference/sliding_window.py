"""A network over an image larger than its patch, delivered slab by slab along the coarsest axis.

Only one patch depth of logits is held at a time, whatever the length of the volume.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

STEP = 0.5  # of a patch between tiles (nnU-Net)
SIGMA = 1 / 8  # of a patch, of the Gaussian that weighs a tile's voxels (nnU-Net)


@dataclass(frozen=True)
class Window:
    """How tiles are cut and predicted.

    Attributes:
        dims: of the network, 2 or 3.
        patch: (Z, Y, X) voxels; Z is 1 for a 2D network.
        batch: tiles predicted together.
        slices: neighbouring slices a 2D network sees as channels; odd.
        mirror_axes: spatial axes of the network's input to mirror; every combination is averaged.
    """

    dims: int
    patch: tuple[int, int, int]
    batch: int
    slices: int = 1
    mirror_axes: tuple[int, ...] = ()


def tile_starts(size: int, patch: int) -> list[int]:
    """Return the first voxel of every tile along an axis: at most half a patch apart, evenly spread."""
    if size <= patch:
        return [0]
    count = -(-(size - patch) // max(1, int(patch * STEP))) + 1
    return [round(i * (size - patch) / (count - 1)) for i in range(count)]


def gaussian(patch: Sequence[int]) -> Tensor:
    """Return the weight of each voxel of a tile, shape `patch`, largest in the middle and nowhere 0."""
    weight = torch.ones(())
    for n in patch:
        distance = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
        weight = weight[..., None] * torch.exp(-0.5 * (distance / max(n * SIGMA, 1e-3)) ** 2)
    return weight.clamp(min=float(weight.max()) * 1e-4)


@torch.inference_mode()
def logits_by_slab(networks: Sequence[nn.Module], image: Tensor, num_outputs: int, window: Window) -> Iterator[Tensor]:
    """Yield logits (K, z, Y, X), consecutive slabs that together cover the image once.

    The logits of the networks (folds) and of all mirrorings are averaged.

    Args:
        networks: in eval mode, all on one device.
        image: shape (C, Z, Y, X), on any device.
        num_outputs: K.
        window: tiles.
    """
    # Several slices make a row of a 2D network, so that they share a batch.
    depth = window.patch[0] if window.dims == 3 else max(1, window.batch)
    original = image.shape[1:]
    padded, offset = _pad(image, (window.patch[0] if window.dims == 3 else 1, *window.patch[1:]))
    size = padded.shape[1:]
    inside, lines_inside, columns_inside = (slice(lo, lo + n) for lo, n in zip(offset, original, strict=True))
    device = next(networks[0].parameters()).device
    tile_shape = window.patch if window.dims == 3 else window.patch[1:]
    weight = gaussian(tile_shape).to(device)
    rows = tile_starts(size[0], depth) if window.dims == 3 else list(range(0, size[0], depth))
    total = torch.zeros(num_outputs, depth, *size[1:], device=device)
    weights = torch.zeros(depth, *size[1:], device=device)
    for row, top in enumerate(rows):
        for corners in _batches(_corners(window, size, depth, top), window.batch):
            tiles = torch.stack([_cut(padded, corner, window) for corner in corners]).to(device)
            for corner, logits in zip(corners, _mirrored(networks, tiles, window.mirror_axes), strict=True):
                z, y, x = corner[0] - top, corner[1], corner[2]
                lines, columns = _extent(y, x, window.patch)
                slices: int | slice = z if window.dims == 2 else slice(None)
                total[:, slices, lines, columns] += logits * weight
                weights[slices, lines, columns] += weight
        bottom = rows[row + 1] if row + 1 < len(rows) else size[0]
        done = bottom - top
        lo, hi = max(inside.start - top, 0), min(inside.stop - top, done)
        if hi > lo:
            yield (total[:, lo:hi] / weights[lo:hi])[..., lines_inside, columns_inside]
        total = torch.cat([total[:, done:], torch.zeros_like(total[:, :done])], dim=1)
        weights = torch.cat([weights[done:], torch.zeros_like(weights[:done])])


def _corners(window: Window, size: Sequence[int], depth: int, top: int) -> list[tuple[int, int, int]]:
    slices = [top] if window.dims == 3 else range(top, min(top + depth, size[0]))
    rows, columns = tile_starts(size[1], window.patch[1]), tile_starts(size[2], window.patch[2])
    return list(itertools.product(slices, rows, columns))


def _batches(corners: list[tuple[int, int, int]], size: int) -> Iterator[list[tuple[int, int, int]]]:
    for start in range(0, len(corners), size):
        yield corners[start : start + size]


def _extent(y: int, x: int, patch: tuple[int, int, int]) -> tuple[slice, slice]:
    return slice(y, y + patch[1]), slice(x, x + patch[2])


def _cut(image: Tensor, corner: tuple[int, int, int], window: Window) -> Tensor:
    z, y, x = corner
    lines, columns = _extent(y, x, window.patch)
    if window.dims == 3:
        return image[:, z : z + window.patch[0], lines, columns]
    reach = window.slices // 2
    neighbours = image[:, max(0, z - reach) : z + reach + 1, lines, columns]
    # Beyond the first and last slice there is 0, as in training.
    missing = (max(0, reach - z), max(0, z + reach + 1 - image.shape[1]))
    return torch.nn.functional.pad(neighbours, (0, 0, 0, 0, *missing)).flatten(0, 1)


def _pad(image: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, tuple[int, int, int]]:
    """Pad with 0 (the mean of a normalised image) to at least `shape`; return where the image starts."""
    missing = [max(0, wanted - have) for wanted, have in zip(shape, image.shape[1:], strict=True)]
    before = [n // 2 for n in missing]
    pads = [p for n, b in zip(reversed(missing), reversed(before), strict=True) for p in (b, n - b)]
    return torch.nn.functional.pad(image, pads), (before[0], before[1], before[2])


def _mirrored(networks: Sequence[nn.Module], tiles: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return logits (B, K, ...) averaged over networks and all combinations of mirrored axes, float32."""
    flips = [
        tuple(axis + 2 for axis in chosen)
        for count in range(len(axes) + 1)
        for chosen in itertools.combinations(axes, count)
    ]
    total: Tensor | None = None
    for flip in flips:
        flipped = tiles.flip(flip) if flip else tiles
        for network in networks:
            logits = network(flipped).float()
            logits = logits.flip(flip) if flip else logits
            total = logits if total is None else total + logits
    assert total is not None
    return total / (len(flips) * len(networks))
