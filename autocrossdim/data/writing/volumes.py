"""Sizes of what was segmented: one small file per case, which several jobs can write, and `volumes.csv` of all."""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from autocrossdim.data.geometry import Geometry
from autocrossdim.data.pictures import PICTURES
from autocrossdim.data.writing.summary import summarise
from autocrossdim.records.labels import Labels
from autocrossdim.system.files import write_csv, write_json

DIRECTORY = "volumes"  # inside the output directory, so that segmentations can be evaluated as a directory
COLUMNS = ("case", "label", "voxels", "volume_ml", "area_mm2")


class CaseVolumes(BaseModel):
    """Sizes of the structures of one case.

    Attributes:
        case: Name of the case.
        dims: 2 for an image with a single plane and no depth, else 3.
        voxel: Size of a voxel in mm³, or of a pixel in mm² if `dims` is 2; None if the file does not state it.
        voxels: Number of voxels per label or region; regions may overlap.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case: str
    dims: int
    voxel: float | None
    voxels: dict[str, int]

    def rows(self) -> list[tuple[str, str, int, str, str]]:
        """Return the rows of the table."""
        rows = []
        for label, number in self.voxels.items():
            size = None if self.voxel is None else number * self.voxel
            volume = "" if size is None or self.dims == 2 else f"{size / 1000:.6g}"
            area = "" if size is None or self.dims == 3 else f"{size:.6g}"
            rows.append((self.case, label, number, volume, area))
        return rows


def measure(case: str, label: npt.NDArray[np.integer], geometry: Geometry, labels: Labels, ending: str) -> CaseVolumes:
    """Return the sizes of the structures of a case.

    Args:
        case: Name of the case.
        label: Label values, shape (Z, Y, X).
        geometry: Geometry of the image.
        labels: Labels of the dataset.
        ending: File ending of the dataset; pictures have no spacing unless one was given.
    """
    known = ending not in PICTURES or geometry.spacing != (1.0, 1.0, 1.0)
    return CaseVolumes(
        case=case,
        dims=geometry.dims,
        voxel=math.prod(geometry.spacing) if known else None,
        voxels=_voxels(label, labels),
    )


def _voxels(label: npt.NDArray[np.integer], labels: Labels) -> dict[str, int]:
    """Return the number of voxels per label or region; slice by slice, because counting takes 8 bytes per voxel."""
    count = labels.values[-1] + 1
    each = (np.bincount(plane.ravel(), minlength=count)[:count] for plane in label)
    counts = sum(each, np.zeros(count, np.int64))
    return {name: int(counts[list(values)].sum()) for name, values in labels.foreground.items()}


def has_volumes(output: Path, case: str) -> bool:
    """Whether the sizes of a case were written."""
    return _file(output, case).exists()


def write_volumes(output: Path, volumes: CaseVolumes) -> None:
    """Write `volumes/CASE.json` below `output`."""
    write_json(_file(output, volumes.case), volumes.model_dump(mode="json"))


def write_table(output: Path) -> list[CaseVolumes]:
    """Write `volumes.csv` of all cases below `output`, whichever process segmented them, sorted by name.

    Raises:
        UserError: The numbers of a case are damaged.
    """

    def write(cases: list[CaseVolumes]) -> None:
        write_csv(output / f"{DIRECTORY}.csv", COLUMNS, (row for case in cases for row in case.rows()))

    return summarise(CaseVolumes, output / DIRECTORY, ".json", write)


def _file(output: Path, case: str) -> Path:
    return output / DIRECTORY / f"{case}.json"
