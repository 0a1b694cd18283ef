"""Uncertainty on disk: maps and numbers per case, and the list of all cases."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from autocrossdim.data.geometry import Geometry, same_place
from autocrossdim.data.images import read_image
from autocrossdim.inference.case_list import (
    explain_list,
    has_uncertainty,
    remove_from_list,
    write_list,
    write_uncertainty,
)
from autocrossdim.inference.uncertainty import Uncertainty
from autocrossdim.records.calibration import CaseScore
from autocrossdim.records.likeness import Familiarity
from autocrossdim.system.errors import UserError


def uncertainty(confidence: float, agreement: float) -> Uncertainty:
    zeros = np.zeros((2, 3, 4), np.float32)
    return Uncertainty(zeros, zeros + 0.5, {"a": confidence, "b": math.nan}, {"a": agreement, "b": math.nan})


@pytest.mark.parametrize(
    ("ending", "written"), [(".nii.gz", ".nii.gz"), (".mha", ".mha"), (".tif", ".tif"), (".png", ".nii.gz")]
)
def test_maps_are_on_the_grid_of_the_image_and_the_least_certain_cases_come_first(
    tmp_path: Path, ending: str, written: str
) -> None:
    geometry = Geometry((2, 3, 4), (3.0, 1.0, 1.5), (5, 6, 7), (0, 1, 0, 1, 0, 0, 0, 0, -1), 3)
    score = CaseScore(slope=0.5, intercept=0.25, calibrated=True, n_cases=9, n_groups=9, error=0.1, error_of_mean=0.2)
    for name, confidence, agreement in (("sure", 0.9, 0.9), ("doubt", 0.5, 0.9), ("torn", 0.5, 0.3)):
        assert not has_uncertainty(tmp_path, name)
        write_uncertainty(
            tmp_path,
            name,
            uncertainty(confidence, agreement),
            geometry=geometry,
            ending=ending,
            score=score,
            missing_channels=("T2", "FLAIR"),
        )
        assert has_uncertainty(tmp_path, name)
    write_uncertainty(tmp_path, "none", uncertainty(math.nan, math.nan), geometry=geometry, ending=ending, score=score)
    found = read_image([tmp_path / "uncertainty" / f"torn_disagreement{written}"])
    assert found.geometry.spacing == geometry.spacing
    if written != ".tif":  # which has no origin and direction
        assert same_place(found.geometry, geometry) is None
    assert (found.array == 0.5).all()
    assert (tmp_path / "uncertainty" / f"torn_entropy{written}").exists()

    cases = write_list(tmp_path)
    assert [case.case for case in cases] == ["none", "torn", "doubt", "sure"]
    assert cases[-1].expected_dice == pytest.approx(0.7)
    with (tmp_path / "uncertainty.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[1] == {
        "case": "torn",
        "expected_dice": "0.5000",
        "calibrated": "yes",
        "fold_agreement": "0.3000",
        "labels_not_found": "b",
        "unlike_training": "",
        "unlike_in": "",
        "missing_channels": "T2; FLAIR",
    }
    assert rows[0]["expected_dice"] == ""
    assert json.loads((tmp_path / "uncertainty.json").read_text(encoding="utf-8"))[1]["case"] == "torn"
    assert "Review these cases first: none, torn, doubt and 1 more" in explain_list(cases, score=score, members=5)[-1]
    assert "single fold" in explain_list(cases, score=score, members=1)[1]

    remove_from_list(tmp_path, "none")
    assert write_list(tmp_path)[0].case == "torn"
    (tmp_path / "uncertainty" / "torn_uncertainty.json").write_text("{}")
    with pytest.raises(UserError, match=r"torn_uncertainty\.json: damaged \(.*\)\. Delete it"):
        write_list(tmp_path)


def test_the_list_says_how_like_the_training_data_a_case_is(tmp_path: Path) -> None:
    geometry = Geometry((2, 3, 4), (1.0, 1.0, 1.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 3)
    write_uncertainty(
        tmp_path,
        "case",
        uncertainty(0.5, 0.5),
        geometry=geometry,
        ending=".nii.gz",
        score=CaseScore(),
        familiarity=Familiarity(score=3.14159, differs_in="size"),
    )
    assert write_list(tmp_path)[0].unlike_training == 3.14159
    with (tmp_path / "uncertainty.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["unlike_training"], row["unlike_in"]) == ("3.1416", "size")


def test_maps_are_not_among_the_segmentations(tmp_path: Path) -> None:
    geometry = Geometry((2, 3, 4), (1.0, 1.0, 1.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 3)
    write_uncertainty(tmp_path, "case", uncertainty(0.5, 0.5), geometry=geometry, ending=".nii.gz", score=CaseScore())
    assert [path.name for path in tmp_path.iterdir()] == ["uncertainty"]


def test_cases_named_like_each_others_maps_do_not_collide(tmp_path: Path) -> None:
    """In TIFF, the spacing of the map `a_entropy.tif` is stored in `a_entropy.json`."""
    geometry = Geometry((2, 3, 4), (3.0, 1.0, 1.5), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 3)
    names = ["a", "a_entropy", "a_disagreement", "a_uncertainty", "uncertainty"]
    for name in names:
        write_uncertainty(tmp_path, name, uncertainty(0.5, 0.5), geometry=geometry, ending=".tif", score=CaseScore())
    assert sorted(case.case for case in write_list(tmp_path)) == sorted(names)
    for name in names:
        assert read_image([tmp_path / "uncertainty" / f"{name}_entropy.tif"]).geometry.spacing == geometry.spacing
