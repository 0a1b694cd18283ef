import math

import numpy as np
import pytest

from autocrossdim.evaluation.summary import summarise
from autocrossdim.records.fingerprint import CaseFingerprint, Fingerprint
from autocrossdim.records.labels import Labels
from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.report.sizes import Agreement, Measure, agreements, case_sizes
from autocrossdim.report.table import results_table

LABELS = Labels.from_dataset_json({"background": 0, "a": 1, "b": 2})
ML = Measure.of(3, spaced=True)


def result(name: str, a: tuple[int, int], b: tuple[int, int]) -> CaseResult:
    """Return a case with (annotated, predicted) voxels of each label."""
    metrics = {
        key: {"Dice": 0.5 if all(pair) else math.nan, "HD95": 99.0 if any(pair) else math.nan}
        | {"n_ref": pair[0], "n_pred": pair[1]}
        for key, pair in (("1", a), ("2", b))
    }
    return CaseResult(reference_file=f"{name}.nii.gz", prediction_file=f"{name}.nii.gz", metrics=metrics)


@pytest.fixture
def summary() -> Summary:
    return summarise([result("x", (1000, 500), (0, 0)), result("y", (0, 250), (8, 0))], LABELS)


@pytest.fixture
def fingerprint() -> Fingerprint:
    case = {"shape": (9, 9, 9), "cropped_shape": (9, 9, 9), "label_voxels": {}}
    cases = (
        CaseFingerprint(name="x", spacing=(2.0, 1.0, 1.0), **case),
        CaseFingerprint(name="y", spacing=(4.0, 1.0, 1.0), **case),
    )
    return Fingerprint(dims=3, cases=cases, intensities=())


def test_volumes_are_in_millilitres_of_each_case_s_own_spacing(summary: Summary, fingerprint: Fingerprint) -> None:
    sizes = case_sizes(summary, fingerprint, ML, ".nii.gz")
    assert sizes["x"]["1"] == pytest.approx((2.0, 1.0))
    assert sizes["y"]["1"] == pytest.approx((0.0, 1.0))
    assert sizes["y"]["2"] == pytest.approx((0.032, 0.0))


@pytest.mark.parametrize(
    ("dims", "spaced", "unit", "size"),
    [(3, True, "mL", 0.03), (3, False, "voxels", 10), (2, True, "mm²", 30), (2, False, "pixels", 10)],
)
def test_units(dims: int, spaced: bool, unit: str, size: float) -> None:
    measure = Measure.of(dims, spaced=spaced)
    assert measure.unit == unit
    assert measure.size(10, (1.0, 3.0, 1.0) if spaced else (1.0, 1.0, 1.0)) == pytest.approx(size)


def test_agreement_counts_cases_in_which_either_has_the_label(summary: Summary, fingerprint: Fingerprint) -> None:
    a, b = agreements(summary, case_sizes(summary, fingerprint, ML, ".nii.gz"))
    assert (a.name, a.cases, b.cases) == ("a", ["x", "y"], ["y"])
    assert a.bias == pytest.approx(0.0)
    assert b.bias == pytest.approx(-0.032)
    assert np.isnan([*a.limits, a.correlation]).all()  # two cases say nothing about a spread


def test_limits_of_agreement_and_correlation() -> None:
    agreement = Agreement("a", ["x", "y", "z"], [1.0, 2.0, 3.0], [1.0, 3.0, 5.0])
    assert agreement.bias == pytest.approx(1.0)
    assert agreement.limits == pytest.approx((1 - 1.96, 1 + 1.96))
    assert agreement.correlation == pytest.approx(1.0)
    assert math.isnan(Agreement("a", ["x", "y", "z"], [2.0] * 3, [1.0, 3.0, 5.0]).correlation)
    assert math.isnan(Agreement("a", [], [], []).bias)


def test_the_table_names_misses_and_gives_no_distance_for_them(summary: Summary, fingerprint: Fingerprint) -> None:
    sizes = case_sizes(summary, fingerprint, ML, ".nii.gz")
    table = results_table(summary, sizes, ML, ending=".nii.gz", drawn=["x"], name="D")
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["rows"]]
    assert [(row["case"], row["label"], row["outcome"], row["HD95 (mm)"]) for row in rows] == [
        ("x", "a", "found", 99.0),
        ("x", "b", "absent", None),
        ("y", "a", "false alarm", None),
        ("y", "b", "missed", None),
    ]
    assert rows[0]["difference (mL)"] == pytest.approx(-1.0)
    assert len(table["digits"]) == len(table["columns"])
    assert "NSD" in rows[0]  # unknown in a summary written by nnU-Net
    assert rows[0]["NSD"] is None


def test_labels_that_were_not_annotated_are_left_out(fingerprint: Fingerprint) -> None:
    partial = result("x", (1000, 500), (0, 0))
    partial.metrics["2"] = dict.fromkeys(partial.metrics["2"], math.nan)
    summary = summarise([partial, result("y", (0, 250), (8, 0))], LABELS)
    sizes = case_sizes(summary, fingerprint, ML, ".nii.gz")
    assert list(agreements(summary, sizes)[1].cases) == ["y"]
    table = results_table(summary, sizes, ML, ending=".nii.gz", drawn=[], name="D")
    (row,) = [row for row in table["rows"] if row[:2] == ["x", "b"]]
    assert row[2] == "not annotated"
    assert row[3:] == [None] * len(row[3:])
