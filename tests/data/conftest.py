from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk


@pytest.fixture(scope="session")
def write_slices() -> Callable[..., Path]:
    """Write a DICOM series of four slices that hold their own number: `write_slices(folder)`."""

    def write(folder: Path) -> Path:
        folder.mkdir()
        writer = sitk.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        for z in range(4):
            image = sitk.GetImageFromArray(np.full((1, 6, 5), z, dtype=np.int16))
            tags = {"0020|000d": "1.2", "0020|000e": "1.2.3", "0020|0013": str(z), "0020|0032": f"0\\0\\{z}"}
            for tag, value in tags.items():
                image.SetMetaData(tag, value)
            writer.SetFileName(str(folder / f"{z}.dcm"))
            writer.Execute(image)
        return folder

    return write
