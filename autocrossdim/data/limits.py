"""Bounds on what is read: a file may declare gigabytes and be tiny, or inflate to gigabytes."""

from pathlib import Path

from autocrossdim.system.errors import UserError
from autocrossdim.system.memory import total_memory

MAX_DEFLATE = 1032  # the largest factor by which zlib and gzip can shrink data
MAX_TRAILING = 2**20  # bytes tolerated after the voxels of a file

LARGE = 2**30  # bytes; smaller images are read in seconds whatever they hold
MAX_IMAGE_FACTOR = 500  # scans are compressed 2 to 50 times; an image of almost nothing but zeros, 1000 times


def check_declared(path: Path, declared: int, *, is_label: bool = False) -> None:
    """Check that an image of `declared` bytes of voxels may be read, before memory is allocated.

    Label maps of large scans are mostly zeros and may be as small as compression makes them.

    Raises:
        UserError: More than memory can hold, or an image far too large for its file.
    """
    memory = total_memory()
    if memory is not None and declared > memory:
        raise UserError(
            f"{path}: declares {declared / 1e9:,.1f} GB of voxels, more than the {memory / 1e9:,.1f} GB of memory. "
            "Check the file, crop or downsample the image, or use a larger machine."
        )
    size = path.stat().st_size
    if not is_label and declared > LARGE and declared > MAX_IMAGE_FACTOR * size:
        raise UserError(
            f"{path}: declares {declared / 1e9:,.1f} GB of voxels in a file of {size / 1e6:,.1f} MB, but no scan "
            "compresses so well. Replace the file."
        )
