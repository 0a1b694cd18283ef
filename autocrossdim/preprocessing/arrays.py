"""Compressed arrays on disk, from which a patch is read without reading the rest."""

from pathlib import Path

import blosc2
import numpy as np

from autocrossdim.system.files import library_path, written_whole

BLOCK_BYTES = 2**17  # fits a core's cache


def open_array(path: Path) -> blosc2.NDArray:
    """Open a compressed array for reading; slicing reads only the blocks of the slice."""
    return blosc2.open(library_path(path), mode="r", dparams={"nthreads": 1})


def write_array(path: Path, array: np.ndarray, chunks: tuple[int, ...]) -> None:
    """Write an array, compressed in chunks of this shape."""
    with written_whole(path, RuntimeError) as temporary:
        blosc2.asarray(
            np.ascontiguousarray(array),
            urlpath=library_path(temporary),
            chunks=chunks,
            blocks=_blocks(chunks, array.itemsize),
            cparams={"codec": blosc2.Codec.ZSTD, "clevel": 5, "nthreads": 1},
        )


def _blocks(chunks: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the shape of the smallest unit that is decompressed: a chunk, halved along its longest axis until it fits.

    blosc2 chooses flat slabs by default. Measured for random patches of 128^3: 17 ms instead of 30 ms per patch.
    """
    blocks = list(chunks)
    while np.prod(blocks) * itemsize > BLOCK_BYTES:
        longest = int(np.argmax(blocks))
        blocks[longest] = -(-blocks[longest] // 2)
    return tuple(blocks)
