"""Sizes of structures: mL of volumes, mm² of images, and neither where the file has no spacing."""

import csv
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocrossdim.data.geometry import Geometry
from autocrossdim.data.writing.volumes import measure, write_table, write_volumes
from autocrossdim.records.labels import Labels
from autocrossdim.system.files import write_csv

REGIONS = Labels.from_dataset_json({"background": 0, "whole": [1, 2], "core": 2}, [1, 2])
AXES = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def label(*shape: int) -> np.ndarray:
    array = np.zeros(shape, np.uint8)
    array[..., :2, :5] = 1
    array[..., 0, :3] = 2
    return array


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "volumes.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_regions_are_measured_with_what_they_contain(tmp_path: Path) -> None:
    volume = Geometry((4, 6, 8), (5.0, 0.5, 0.5), (0, 0, 0), AXES, 3)
    write_volumes(tmp_path, measure("b", label(4, 6, 8), volume, REGIONS, ".nii.gz"))
    picture = Geometry((1, 6, 8), (1.0, 0.5, 0.5), (0, 0), (1, 0, 0, 1), 2)
    write_volumes(tmp_path, measure("a", label(1, 6, 8), picture, REGIONS, ".nii.gz"))
    unknown = Geometry((1, 6, 8), (1.0, 1.0, 1.0), (0, 0), (1, 0, 0, 1), 2)
    write_volumes(tmp_path, measure("c", label(1, 6, 8), unknown, REGIONS, ".png"))
    write_table(tmp_path)
    sizes = [tuple(row.values()) for row in rows(tmp_path)]
    assert sizes == [
        ("a", "whole", "10", "", "2.5"),
        ("a", "core", "3", "", "0.75"),
        ("b", "whole", "40", "0.05", ""),
        ("b", "core", "12", "0.015", ""),
        ("c", "whole", "10", "", ""),
        ("c", "core", "3", "", ""),
    ]


def test_voxels_of_a_large_volume_are_counted_in_little_memory() -> None:
    values = np.random.default_rng(0).integers(0, 3, (100, 100, 100)).astype(np.uint8)
    volume = Geometry(values.shape, (1.0, 1.0, 1.0), (0, 0, 0), AXES, 3)
    tracemalloc.start()
    sizes = measure("a", values, volume, REGIONS, ".nii.gz").voxels
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sizes == {"whole": (values > 0).sum(), "core": (values == 2).sum()}
    assert peak < values.nbytes / 4


def test_a_case_that_another_job_adds_meanwhile_is_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volume = Geometry((4, 6, 8), (5.0, 0.5, 0.5), (0, 0, 0), AXES, 3)
    write_volumes(tmp_path, measure("a", label(4, 6, 8), volume, REGIONS, ".nii.gz"))

    def slowly(path: Path, *table: Any) -> None:
        write_volumes(tmp_path, measure("b", label(4, 6, 8), volume, REGIONS, ".nii.gz"))
        write_csv(path, *table)

    monkeypatch.setattr("autocrossdim.data.writing.volumes.write_csv", slowly)
    assert [case.case for case in write_table(tmp_path)] == ["a", "b"]
    assert {row["case"] for row in rows(tmp_path)} == {"a", "b"}
