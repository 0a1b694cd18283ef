import json
import math
from pathlib import Path
from typing import Any

import pytest

from autocrossdim.records.calibration import CaseScore
from autocrossdim.records.summary import CaseResult, Intervals, Summary, SummaryCalibration
from autocrossdim.system.errors import UserError

NNUNET = {
    "foreground_mean": {"Dice": 0.5, "n_pred": 1.5, "n_ref": 2.5},
    "mean": {"1": {"Dice": 0.5, "n_pred": 1.5, "n_ref": 2.5}},
    "metric_per_case": [
        {"metrics": {"1": {"Dice": 0.5, "n_pred": 3, "n_ref": 5}}, "prediction_file": "p/a.png", "reference_file": "a"},
        {
            "metrics": {"1": {"Dice": math.nan, "n_pred": 0, "n_ref": 0}},
            "prediction_file": "p/b.png",
            "reference_file": "b",
        },
    ],
}


def written(content: Any, path: Path) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_a_file_written_by_nnunet_is_read_and_its_cases_are_counted(tmp_path: Path) -> None:
    summary = Summary.read(written(NNUNET, tmp_path / "summary.json"))
    assert summary.mean == NNUNET["mean"]
    assert (summary.n_cases, summary.n_groups, summary.n_present) == (2, 2, {"1": 1})
    assert math.isnan(summary.metric_per_case[1].dice)
    assert math.isnan(summary.ends("Dice", "1")[0])
    assert summary.name("1") == "1"


def test_what_nnunet_reads_is_written_as_nnunet_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "summary.json"
    Summary.read(written(NNUNET, path)).write(path)
    text = path.read_text(encoding="utf-8")
    assert '"Dice": NaN' in text
    content = json.loads(text)
    assert content["foreground_mean"] == NNUNET["foreground_mean"]
    assert content["mean"] == NNUNET["mean"]
    first = content["metric_per_case"][0]
    assert first["metrics"] == {"1": {"Dice": 0.5, "n_pred": 3, "n_ref": 5}}
    assert isinstance(first["metrics"]["1"]["n_pred"], int)
    assert "group" not in first
    assert list(content)[-1] == "metric_per_case"
    assert content["n_missed"] == content["n_false_alarms"] == {"1": 0}


def test_everything_else_is_read_back(tmp_path: Path) -> None:
    metrics = {"1": {"Dice": 0.5, "HD95": 2.0, "n_pred": 3, "n_ref": 5}}
    summary = Summary(
        foreground_mean={"Dice": 0.5, "HD95": 2.0},
        mean={"1": {"Dice": 0.5, "HD95": 2.0}},
        interval=Intervals(level=0.95, method="a test", foreground_mean={"Dice": (0.4, 0.6)}),
        labels={"1": "lesion"},
        skipped=("b.png",),
        calibration=SummaryCalibration(temperature=1.4, case_score=CaseScore(n_cases=3)),
        metric_per_case=(
            CaseResult(reference_file="a", prediction_file="p/a", group="anna", unit="pixels", metrics=metrics),
        ),
    )
    summary.write(tmp_path / "summary.json")
    assert Summary.read(tmp_path / "summary.json") == summary


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([], "must be a dictionary"),
        ({}, "foreground_mean"),
        ({**NNUNET, "metric_per_case": []}, "metric_per_case"),
        ({**NNUNET, "metric_per_case": [{"reference_file": "a"}]}, "metric_per_case"),
        ({**NNUNET, "mean": {"2": {}}}, "a.png has metrics for other labels"),
        (
            {
                **NNUNET,
                "metric_per_case": [{"reference_file": "a", "prediction_file": "p/a", "metrics": {"1": {"Dice": 1}}}],
            },
            "a has no n_pred for label 1",
        ),
        ({**NNUNET, "mean": {"1": {"Dice": "high"}}}, "mean.1.Dice"),
    ],
)
def test_a_damaged_file_is_one_error_that_names_file_fault_and_remedy(tmp_path: Path, content: Any, fault: str) -> None:
    path = written(content, tmp_path / "summary.json")
    with pytest.raises(UserError) as error:
        Summary.read(path)
    message = str(error.value)
    assert message.startswith(f"{path}: damaged or not an evaluation summary (")
    assert fault in message
    assert "autocrossdim evaluate" in message
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"summary\.json: no such file"):
        Summary.read(tmp_path / "summary.json")
