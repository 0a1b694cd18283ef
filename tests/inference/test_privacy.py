"""No header field of an image other than its geometry reaches any output."""

import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import autocrossdim

PLANTED = {
    "0010|0010": "Planted^Name",
    "0010|0020": "PLANTED-ID",
    "0010|0030": "19010203",
    "0008|0080": "PLANTED HOSPITAL",
    "0008|0090": "Planted^Physician",
    "0008|1030": "PLANTED STUDY",
}
"""Name, number and birth date of the patient, institution, physician, and description of the study."""


def write_series(folder: Path) -> Path:
    folder.mkdir()
    for z in range(4):
        image = sitk.GetImageFromArray(np.full((1, 16, 16), 100 * z, np.int16))
        places = {"0020|000e": "1.2.3.4", "0020|000d": "1.2.3", "0020|0013": str(z), "0020|0032": f"0\\0\\{2 * z}"}
        for key, value in (PLANTED | places).items():
            image.SetMetaData(key, value)
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetFileName(str(folder / f"{z}.dcm"))
        writer.Execute(image)
    return folder


def content(path: Path) -> bytes:
    """Return all bytes of a file, uncompressed."""
    if path.suffix == ".gz":
        return gzip.decompress(path.read_bytes())
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:
            return b"".join(map(archive.read, archive.namelist()))
    return path.read_bytes()


def test_no_dicom_attribute_is_copied(
    write_model: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    series = write_series(tmp_path / "series")
    assert all(value.encode() in (series / "0.dcm").read_bytes() for value in PLANTED.values())
    output = tmp_path / "output"
    autocrossdim.predict(write_model(tmp_path / "model"), series, output, probabilities=True, uncertainty=True)
    written = {path.relative_to(output).as_posix(): content(path) for path in output.rglob("*") if path.is_file()}
    assert {"series.nii.gz", "series.npz", "uncertainty.csv", "uncertainty/series_entropy.nii.gz"} <= set(written)
    printed = "".join(capfd.readouterr()).encode()
    for value in PLANTED.values():
        assert not [name for name, found in {**written, "terminal": printed}.items() if value.encode() in found]
