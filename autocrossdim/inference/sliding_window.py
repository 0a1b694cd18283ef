"""Sliding-window inference, delivered slice by slice along the coarsest axis.

Logits are held for one patch depth at a time, whatever the length of the volume. If even that needs too much memory,
the volume is processed in strips of lines.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocrossdim.inference.body import Body
from autocrossdim.preprocessing.resample import Shape
from autocrossdim.system.device import CPU, autocast_for, memory_format_for, send

STEP = 0.5  # distance between tiles, as a fraction of the patch (nnU-Net)
SIGMA = 1 / 8  # standard deviation of the Gaussian weight of a tile's voxels, as a fraction of the patch (nnU-Net)

# Most voxels in a batch on a CPU, where batches pay only for small patches: torch has slow kernels for a single one
# (measured, microseconds per voxel: 40 x 56 x 40 alone 2.1, in twos 0.96, in fours 0.94; 64 x 64 x 64 alone 1.06, in
# twos 0.92), and every patch takes memory.
CPU_BATCH_VOXELS = 2**18

Flip = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """How tiles are cut and predicted.

    Attributes:
        dims: Spatial axes of the network, 2 or 3.
        patch: Patch size (Z, Y, X) in voxels; Z is 1 for a 2D network.
        batch: Number of patches per batch, mirrored versions included.
        slices: Number of neighbouring slices that a 2D network sees as channels; odd.
        mirror_axes: Spatial axes of the network's input to mirror; all combinations are averaged.
        masks: Label values of each mask of the previous stage. If there are any, the last channel of the image holds
            the label values of its segmentation, and tiles have the masks instead.
    """

    dims: int
    patch: Shape
    batch: int
    slices: int = 1
    mirror_axes: tuple[int, ...] = ()
    masks: tuple[tuple[int, ...], ...] = ()

    @property
    def depth(self) -> int:
        """Number of slices predicted together: the patch depth in 3D, a batch of slices in 2D."""
        return self.patch[0] if self.dims == 3 else max(1, self.batch)

    @property
    def flips(self) -> list[Flip]:
        """Combinations of axes of a batch of tiles, (B, C, ...), to mirror; the first is empty."""
        axes = [axis + 2 for axis in self.mirror_axes]
        return [flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)]

    def held_bytes(self, num_outputs: int, shape: Shape) -> int:
        """Return the memory of the accumulated logits, and their weights, of an image of `shape` (Z, Y, X) in bytes."""
        return 4 * (num_outputs + 1) * self.depth * max(shape[1], self.patch[1]) * max(shape[2], self.patch[2])

    def padded_shape(self, shape: Shape) -> Shape:
        """Return the shape to which an image of `shape` (Z, Y, X) is padded: at least a patch in 3D, a tile in 2D."""
        least = (self.patch[0] if self.dims == 3 else 1, *self.patch[1:])
        z, y, x = (max(have, wanted) for have, wanted in zip(shape, least, strict=True))
        return z, y, x


def tile_starts(size: int, patch: int) -> list[int]:
    """Return the first voxel of every tile along an axis: at most half a patch apart, evenly spread."""
    if size <= patch:
        return [0]
    count = -(-(size - patch) // max(1, int(patch * STEP))) + 1
    return [round(i * (size - patch) / (count - 1)) for i in range(count)]


def some_tiles(image: Tensor, window: Window, count: int) -> Iterator[Tensor]:
    """Yield at most `count` tiles (C, *patch) of an image (C, Z, Y, X), evenly spread over it."""
    padded, _ = _pad(image, window)
    z, y, x = padded.shape[1:]
    rows = tile_starts(z, window.patch[0]) if window.dims == 3 else range(z)
    corners = list(itertools.product(rows, tile_starts(y, window.patch[1]), tile_starts(x, window.patch[2])))
    for index in torch.linspace(0, len(corners) - 1, min(count, len(corners))).round().int().tolist():
        yield _cut(padded, corners[index], window)


def gaussian(patch: Sequence[int]) -> Tensor:
    """Return the weight of each voxel of a tile, shape `patch`: largest in the middle, positive everywhere."""
    weight = torch.ones(())
    for n in patch:
        distance = torch.arange(n, dtype=torch.float32) - (n - 1) / 2
        weight = weight[..., None] * torch.exp(-0.5 * (distance / max(n * SIGMA, 1e-3)) ** 2)
    return weight.clamp(min=float(weight.max()) * 1e-4)


@torch.inference_mode()
def logits_by_slab(
    networks: Sequence[nn.Module],
    image: Tensor,
    num_outputs: int,
    window: Window,
    *,
    body: Body | None = None,
    lines: slice | None = None,
    device: torch.device = CPU,
) -> Iterator[Tensor]:
    """Yield logits (K, z, Y, X) in consecutive slabs that together cover the image once.

    The logits of the networks (folds) and of all mirrorings are averaged in float32.

    Args:
        networks: Networks in eval mode; on a GPU they compute in half precision, as in training.
        image: Preprocessed image, shape (C, Z, Y, X), on any device.
        num_outputs: Number K of outputs.
        window: Tiles.
        body: Imaged part of the case, if known; tiles outside it are not predicted.
        lines: Lines along Y to predict; all if None. The result does not depend on this choice.
        device: Device on which the networks compute and logits are accumulated.
    """
    padded, offset = _pad(image, window)
    outside = None if body is None else body.outside.to(device)
    size = padded.shape[1:]
    inside, lines_inside, columns_inside = (slice(lo, lo + n) for lo, n in zip(offset, image.shape[1:], strict=True))
    if lines is not None:
        lines_inside = slice(offset[1] + lines.start, offset[1] + lines.stop)
    accumulator = _Accumulator(networks, num_outputs, window, device, (window.depth, lines_inside, size[2]))
    rows = tile_starts(size[0], window.depth) if window.dims == 3 else list(range(0, size[0], window.depth))
    for row, top in enumerate(rows):
        corners = [
            corner
            for corner in _corners(window, size, top)
            if corner[1] < lines_inside.stop
            and corner[1] + window.patch[1] > lines_inside.start
            and (body is None or body.touches(_unpadded(corner, offset), window.patch))
        ]
        accumulator.add(padded, corners, top)
        bottom = rows[row + 1] if row + 1 < len(rows) else size[0]
        for z in range(max(inside.start - top, 0), min(inside.stop, bottom) - top):
            yield accumulator.slice(z, outside)[:, None, :, columns_inside]
        accumulator.drop(bottom - top)


class _Accumulator:
    """Weighted sums of logits over a slab: a patch depth of slices, some of the lines, all columns.

    Args:
        networks: Networks whose logits are averaged.
        num_outputs: Number K of outputs.
        window: Tiles.
        device: Device on which the networks compute and logits are accumulated.
        shape: Number of slices, lines of the padded image, and number of columns.
    """

    def __init__(
        self,
        networks: Sequence[nn.Module],
        num_outputs: int,
        window: Window,
        device: torch.device,
        shape: tuple[int, slice, int],
    ) -> None:
        depth, self.lines, columns = shape
        self.networks, self.window, self.device = networks, window, device
        self.autocast = autocast_for(device)
        self.weight = gaussian(window.patch[-window.dims :]).to(self.device)
        count = self.lines.stop - self.lines.start
        self.total = torch.zeros(num_outputs, depth, count, columns, device=self.device)
        self.weights = torch.zeros(depth, count, columns, device=self.device)

    def add(self, image: Tensor, corners: list[tuple[int, int, int]], top: int) -> None:
        """Predict the tiles at `corners` of the padded image; `top` is the first slice of the slab."""
        window, layout = self.window, memory_format_for(self.window.dims)
        views = list(itertools.product(corners, window.flips))
        for start in range(0, len(views), window.batch):
            batch = views[start : start + window.batch]
            # Mirrored on the device, so that a tile is sent only once per batch.
            cut = {
                corner: send(_cut(image, corner, window)[None], self.device)
                for corner in dict.fromkeys(corner for corner, _ in batch)
            }
            tiles = torch.cat([_mirrored(cut[corner], flip) for corner, flip in batch])
            tiles = tiles.contiguous(memory_format=layout)
            for network in self.networks:
                with self.autocast:
                    logits = network(tiles)
                for index, (corner, flip) in enumerate(batch):
                    here, lines = self._where(corner, top)
                    tile = _mirrored(logits[index : index + 1], flip)[0][..., lines, :].float()
                    self.total[(slice(None), *here)].addcmul_(tile, self.weight[..., lines, :])
        for corner in corners:
            here, lines = self._where(corner, top)
            self.weights[here] += self.weight[..., lines, :]

    def _where(self, corner: tuple[int, int, int], top: int) -> tuple[tuple[int | slice, slice, slice], slice]:
        """Return the position of a tile in the slab, and the lines of the tile that lie in it."""
        z, y, x = corner
        first, last = max(y, self.lines.start), min(y + self.window.patch[1], self.lines.stop)
        slices = slice(0, self.window.patch[0]) if self.window.dims == 3 else z - top
        within = slice(first - self.lines.start, last - self.lines.start)
        return (slices, within, slice(x, x + self.window.patch[2])), slice(first - y, last - y)

    def slice(self, z: int, outside: Tensor | None) -> Tensor:
        """Return the averaged logits (K, Y, X) of a slice of the slab; `outside` (K,) where nothing was predicted."""
        weights = self.weights[z]
        logits = self.total[:, z] / (weights * len(self.window.flips) * len(self.networks))
        if outside is not None:
            logits = torch.where(weights > 0, logits, outside[:, None, None])
        return logits

    def drop(self, count: int) -> None:
        """Move the slab on by `count` slices, one slice at a time to avoid a copy of all."""
        for z in range(len(self.weights) - count):
            self.total[:, z] = self.total[:, z + count]
            self.weights[z] = self.weights[z + count]
        self.total[:, -count:] = 0
        self.weights[-count:] = 0


def _mirrored(x: Tensor, flip: Flip) -> Tensor:
    return x.flip(flip) if flip else x  # torch copies even if there is nothing to mirror


def _corners(window: Window, size: Sequence[int], top: int) -> list[tuple[int, int, int]]:
    slices = [top] if window.dims == 3 else range(top, min(top + window.depth, size[0]))
    return list(itertools.product(slices, tile_starts(size[1], window.patch[1]), tile_starts(size[2], window.patch[2])))


def _unpadded(corner: tuple[int, int, int], offset: tuple[int, int, int]) -> tuple[int, int, int]:
    return corner[0] - offset[0], corner[1] - offset[1], corner[2] - offset[2]


def _cut(image: Tensor, corner: tuple[int, int, int], window: Window) -> Tensor:
    z, y, x = corner
    lines, columns = slice(y, y + window.patch[1]), slice(x, x + window.patch[2])
    if window.dims == 3:
        tile = image[:, z : z + window.patch[0], lines, columns]
        return _with_masks(tile, window.masks) if window.masks else tile
    reach = window.slices // 2
    neighbours = image[:, max(0, z - reach) : z + reach + 1, lines, columns]
    # Slices beyond the first and last one are 0, as in training.
    missing = (max(0, reach - z), max(0, z + reach + 1 - image.shape[1]))
    return torch.nn.functional.pad(neighbours, (0, 0, 0, 0, *missing)).flatten(0, 1)


def _with_masks(tile: Tensor, masks: Sequence[Sequence[int]]) -> Tensor:
    """Replace the label values in the last channel of a tile by one mask of 0 and 1 per label or region."""
    # Not torch.isin, whose list of values would be copied to a GPU for each tile.
    inside = [torch.stack([tile[-1] == value for value in mask]).any(dim=0) for mask in masks]
    return torch.cat([tile[:-1], torch.stack(inside).to(tile)])


def _pad(image: Tensor, window: Window) -> tuple[Tensor, tuple[int, int, int]]:
    """Pad with 0 (the mean of a normalised image) to `Window.padded_shape`; also return the offset of the image."""
    z, y, x = image.shape[1:]
    missing = [wanted - have for wanted, have in zip(window.padded_shape((z, y, x)), (z, y, x), strict=True)]
    before = [n // 2 for n in missing]
    if any(missing):
        pads = [p for n, b in zip(reversed(missing), reversed(before), strict=True) for p in (b, n - b)]
        image = torch.nn.functional.pad(image, pads)
    return image, (before[0], before[1], before[2])
