"""A network over an image larger than its patch, delivered slice by slice along the coarsest axis.

Only one patch depth of logits is held at a time, whatever the length of the volume; where even that is too much, a
strip of lines at a time.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocrossdim.inference.body import Body
from autocrossdim.preprocessing.resample import Shape
from autocrossdim.system.device import CPU, memory_format_for, precision_for

STEP = 0.5  # of a patch between tiles (nnU-Net)
SIGMA = 1 / 8  # of a patch, of the Gaussian that weighs a tile's voxels (nnU-Net)

HELD_BYTES = 2 * 1024**3  # of logits being summed; more are summed in strips, at the price of predicting seams twice
# On a CPU a batch pays only where patches are small: torch takes slow kernels for a single one (measured, microseconds
# a voxel: 40 x 56 x 40 alone 2.1, two 0.96, four 0.94; 64 x 64 x 64 alone 1.06, two 0.92; each takes its memory).
CPU_BATCH_VOXELS = 2**18

Flip = tuple[int, ...]


@dataclass(frozen=True)
class Window:
    """How tiles are cut and predicted.

    Attributes:
        dims: of the network, 2 or 3.
        patch: (Z, Y, X) voxels; Z is 1 for a 2D network.
        batch: patches, mirrored ones counted, that go through the network together.
        slices: neighbouring slices a 2D network sees as channels; odd.
        mirror_axes: spatial axes of the network's input to mirror; every combination is averaged.
    """

    dims: int
    patch: Shape
    batch: int
    slices: int = 1
    mirror_axes: tuple[int, ...] = ()

    @property
    def depth(self) -> int:
        """Slices predicted before the first of them is finished; several make a 2D network's batch."""
        return self.patch[0] if self.dims == 3 else max(1, self.batch)

    @property
    def flips(self) -> list[Flip]:
        """Axes of a batch of tiles, (B, C, ...), to mirror; first none."""
        axes = [axis + 2 for axis in self.mirror_axes]
        return [flip for count in range(len(axes) + 1) for flip in itertools.combinations(axes, count)]

    def strips(self, num_outputs: int, shape: Shape) -> int:
        """Return in how many strips of lines an image of `shape` (Z, Y, X) is done, so that `HELD_BYTES` suffice."""
        held = num_outputs * self.depth * max(shape[1], self.patch[1]) * max(shape[2], self.patch[2])
        return min(shape[1], -(-held * 4 // HELD_BYTES))


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
def logits_by_slab(
    networks: Sequence[nn.Module],
    image: Tensor,
    num_outputs: int,
    window: Window,
    body: Body | None = None,
    lines: slice | None = None,
    device: torch.device = CPU,
) -> Iterator[Tensor]:
    """Yield logits (K, z, Y, X), consecutive slabs that together cover the image once.

    The logits of the networks (folds) and of all mirrorings are averaged, in float32.

    Args:
        networks: in eval mode; on a GPU they compute in its half precision, as in training.
        image: shape (C, Z, Y, X), on any device.
        num_outputs: K.
        window: tiles.
        body: what is known of the outside; tiles that lie wholly there are not predicted.
        lines: only these of the Y lines, to the value that all lines together would give; all if None.
        device: on which the networks compute and logits are summed.
    """
    padded, offset = _pad(image, (window.patch[0] if window.dims == 3 else 1, *window.patch[1:]))
    size = padded.shape[1:]
    inside, lines_inside, columns_inside = (slice(lo, lo + n) for lo, n in zip(offset, image.shape[1:], strict=True))
    if lines is not None:
        lines_inside = slice(offset[1] + lines.start, offset[1] + lines.stop)
    held = _Held(networks, num_outputs, window, device, (window.depth, lines_inside, size[2]))
    rows = tile_starts(size[0], window.depth) if window.dims == 3 else list(range(0, size[0], window.depth))
    for row, top in enumerate(rows):
        corners = [
            corner
            for corner in _corners(window, size, top)
            if corner[1] < lines_inside.stop
            and corner[1] + window.patch[1] > lines_inside.start
            and (body is None or body.touches(_unpadded(corner, offset), window.patch))
        ]
        held.add(padded, corners, top)
        bottom = rows[row + 1] if row + 1 < len(rows) else size[0]
        for z in range(max(inside.start - top, 0), min(inside.stop, bottom) - top):
            yield held.slice(z, body)[:, None, :, columns_inside]
        held.drop(bottom - top)


class _Held:
    """Weighted sums of logits over `shape`: slices from `top` on, some of the lines, all columns."""

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
        self.autocast = torch.autocast(
            self.device.type,
            dtype=torch.bfloat16 if precision_for(self.device) == "bf16-mixed" else torch.float16,
            enabled=self.device.type == "cuda",
        )
        self.weight = gaussian(window.patch[-window.dims :]).to(self.device)
        count = self.lines.stop - self.lines.start
        self.total = torch.zeros(num_outputs, depth, count, columns, device=self.device)
        self.weights = torch.zeros(depth, count, columns, device=self.device)

    def add(self, image: Tensor, corners: list[tuple[int, int, int]], top: int) -> None:
        """Predict the tiles at `corners` of the padded image; `top` is the first slice held."""
        window, layout = self.window, memory_format_for(self.window.dims)
        views = list(itertools.product(corners, window.flips))
        for start in range(0, len(views), window.batch):
            batch = views[start : start + window.batch]
            tiles = torch.cat([_cut(image, corner, window)[None].flip(flip) for corner, flip in batch])
            tiles = tiles.to(self.device).contiguous(memory_format=layout)
            for network in self.networks:
                with self.autocast:
                    logits = network(tiles)
                for index, (corner, flip) in enumerate(batch):
                    here, lines = self._where(corner, top)
                    tile = logits[index : index + 1].flip(flip)[0][..., lines, :].float()
                    self.total[(slice(None), *here)].addcmul_(tile, self.weight[..., lines, :])
        for corner in corners:
            here, lines = self._where(corner, top)
            self.weights[here] += self.weight[..., lines, :]

    def _where(self, corner: tuple[int, int, int], top: int) -> tuple[tuple[int | slice, slice, slice], slice]:
        """Where a tile lies in what is held, and which of its lines do."""
        z, y, x = corner
        first, last = max(y, self.lines.start), min(y + self.window.patch[1], self.lines.stop)
        slices = slice(0, self.window.patch[0]) if self.window.dims == 3 else z - top
        within = slice(first - self.lines.start, last - self.lines.start)
        return (slices, within, slice(x, x + self.window.patch[2])), slice(first - y, last - y)

    def slice(self, z: int, body: Body | None) -> Tensor:
        """Return the finished logits (K, Y, X) of one slice held."""
        weights = self.weights[z]
        logits = self.total[:, z] / (weights * len(self.window.flips) * len(self.networks))
        if body is not None:
            logits = torch.where(weights > 0, logits, body.outside.to(logits)[:, None, None])
        return logits

    def drop(self, count: int) -> None:
        """Forget the first `count` slices and make room for as many; a slice at a time, so without a copy of all."""
        for z in range(len(self.weights) - count):
            self.total[:, z] = self.total[:, z + count]
            self.weights[z] = self.weights[z + count]
        self.total[:, -count:] = 0
        self.weights[-count:] = 0


def _corners(window: Window, size: Sequence[int], top: int) -> list[tuple[int, int, int]]:
    slices = [top] if window.dims == 3 else range(top, min(top + window.depth, size[0]))
    return list(itertools.product(slices, tile_starts(size[1], window.patch[1]), tile_starts(size[2], window.patch[2])))


def _unpadded(corner: tuple[int, int, int], offset: tuple[int, int, int]) -> tuple[int, int, int]:
    return corner[0] - offset[0], corner[1] - offset[1], corner[2] - offset[2]


def _cut(image: Tensor, corner: tuple[int, int, int], window: Window) -> Tensor:
    z, y, x = corner
    lines, columns = slice(y, y + window.patch[1]), slice(x, x + window.patch[2])
    if window.dims == 3:
        return image[:, z : z + window.patch[0], lines, columns]
    reach = window.slices // 2
    neighbours = image[:, max(0, z - reach) : z + reach + 1, lines, columns]
    # Beyond the first and last slice there is 0, as in training.
    missing = (max(0, reach - z), max(0, z + reach + 1 - image.shape[1]))
    return torch.nn.functional.pad(neighbours, (0, 0, 0, 0, *missing)).flatten(0, 1)


def _pad(image: Tensor, shape: Shape) -> tuple[Tensor, tuple[int, int, int]]:
    """Pad with 0 (the mean of a normalised image) to at least `shape`; return where the image starts."""
    missing = [max(0, wanted - have) for wanted, have in zip(shape, image.shape[1:], strict=True)]
    before = [n // 2 for n in missing]
    if any(missing):
        pads = [p for n, b in zip(reversed(missing), reversed(before), strict=True) for p in (b, n - b)]
        image = torch.nn.functional.pad(image, pads)
    return image, (before[0], before[1], before[2])
