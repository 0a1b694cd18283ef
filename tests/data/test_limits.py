"""What is read is bounded by what header and file may hold: bombs are refused within a second or so."""

import gzip
import os
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from autocrossdim.data import images, limits
from autocrossdim.data.images import read_image, read_label
from autocrossdim.system.errors import UserError

resource = pytest.importorskip("resource")
MEGABYTE = 2**20


@pytest.fixture(autouse=True)
def quick() -> Iterator[None]:
    """Fail a test that takes seconds of computing or allocates more than a gigabyte."""
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - started < 3
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTE, "in KiB"


def nifti_header(*shape: int) -> bytes:
    """Header of a NIfTI-1 file of bytes, `shape` as x, y, z."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 2, 8)
    struct.pack_into("<8f", header, 76, *[1] * 8)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return bytes(header)


def zeros(compress: Callable[[], "zlib._Compress"], start: bytes, megabytes: int) -> bytes:
    """Compress `start` and zeros after it, without ever holding them."""
    squeezed = compress()
    parts = [squeezed.compress(start)]
    parts += [squeezed.compress(bytes(MEGABYTE)) for _ in range(megabytes)]
    return b"".join(parts) + squeezed.flush()


def gzipped() -> "zlib._Compress":
    return zlib.compressobj(9, wbits=31)


def test_a_tiny_file_that_declares_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(nifti_header(1500, 1500, 1500) + bytes(1000)))
    for read in (lambda: read_image([path]), lambda: read_label(path)):
        with pytest.raises(UserError, match=r"x\.nii\.gz: truncated: the header declares 3,375,000,000 bytes"):
            read()


def test_a_file_that_inflates_far_beyond_its_header(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(zeros(gzipped, nifti_header(10, 10, 10), 64))
    for read in (lambda: read_image([path]), lambda: read_label(path)):
        with pytest.raises(UserError, match=r"x\.nii\.gz: contains far more data than its header declares"):
            read()


def test_a_few_bytes_after_the_voxels_are_tolerated(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(nifti_header(10, 10, 10) + bytes(1000 + 512)))
    assert read_image([path]).array.shape == (1, 10, 10, 10)


def test_an_image_of_nothing_but_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real limit of a gigabyte such a file takes minutes; a label map may be as empty as that."""
    monkeypatch.setattr(limits, "LARGE", 20 * MEGABYTE)
    path = tmp_path / "x.nii.gz"
    path.write_bytes(zeros(gzipped, nifti_header(1024, 1024, 21), 21))
    with pytest.raises(UserError, match=r"x\.nii\.gz: declares 0\.0 GB of voxels in a file of 0\.0 MB"):
        read_image([path])
    assert read_label(path)[0].shape == (21, 1024, 1024)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".tif", ".png"])
def test_more_voxels_than_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    shape = (1, 100, 100)[ending == ".png" :]
    noise = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(noise), str(path))
    read_image([path])
    monkeypatch.setattr(limits, "total_memory", lambda: 9_999)
    with pytest.raises(UserError, match=rf"x{ending}: declares .* more than the .* of memory"):
        read_image([path])


def test_voxels_that_begin_far_behind_the_header(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    header = bytearray(nifti_header(10, 10, 10))
    struct.pack_into("<f", header, 108, 1e9)
    path.write_bytes(zeros(gzipped, bytes(header), 2))
    with pytest.raises(UserError, match=r"x\.nii\.gz: the header places the voxels at byte 1000000000"):
        read_image([path])


def mha(size: str, voxels: bytes) -> bytes:
    lines = [
        "ObjectType = Image",
        "NDims = 3",
        "BinaryData = True",
        "CompressedData = True",
        f"DimSize = {size}",
        "ElementType = MET_UCHAR",
        "ElementDataFile = LOCAL",
    ]
    return "\n".join(lines).encode() + b"\n" + voxels


def test_compressed_voxels_of_an_mha_file(tmp_path: Path) -> None:
    path = tmp_path / "x.mha"
    path.write_bytes(mha("1500 1500 1500", zlib.compress(bytes(1000))))
    with pytest.raises(UserError, match=r"x\.mha: truncated: the header declares 3,375,000,000 bytes"):
        read_image([path])
    path.write_bytes(mha("10 10 10", zeros(lambda: zlib.compressobj(9), b"", 64)))
    with pytest.raises(UserError, match=r"x\.mha: contains far more data than its header declares"):
        read_image([path])


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_a_header_without_end(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    with path.open("wb") as file:
        file.truncate(2**31)  # sparse: zeros without a newline
    with pytest.raises(UserError, match=rf"x{ending}: "):
        read_image([path])


def test_a_picture_of_more_pixels_than_any_camera(tmp_path: Path) -> None:
    """A PNG of 1.6 gigapixels in 200 kB."""
    path = tmp_path / "x.png"
    parts = {
        b"IHDR": struct.pack(">2I5B", 40_000, 40_000, 1, 0, 0, 0, 0),
        b"IDAT": zeros(lambda: zlib.compressobj(9), b"", 192),
        b"IEND": b"",
    }
    content = b"".join(
        struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
        for name, part in parts.items()
    )
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert path.stat().st_size < MEGABYTE
    with pytest.raises(UserError, match=r"x\.png: (declares|cannot be read)"):
        read_image([path])
    with pytest.raises(UserError, match=r"x\.png: cannot be read"):
        read_label(path)


def test_a_directory_or_pipe_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.nii.gz").mkdir()
    os.mkfifo(tmp_path / "y.nii.gz")
    with pytest.raises(UserError, match=r"x\.nii\.gz: a directory, not a file"):
        read_label(tmp_path / "x.nii.gz")
    with pytest.raises(UserError, match=r"y\.nii\.gz: not a regular file"):
        read_label(tmp_path / "y.nii.gz")
    assert images.file_ending(tmp_path / "x.nii.gz") == ".nii.gz"
