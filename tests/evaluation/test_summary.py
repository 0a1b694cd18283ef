import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from rich.console import Console

from autocrossdim.evaluation.summary import CaseResult, evaluate_folder, labels_from, merge, summarise
from autocrossdim.records.labels import Labels
from autocrossdim.report.terminal import summary_table
from autocrossdim.system.errors import UserError

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
TWO = Labels(foreground={"liver": (1,), "tumour": (2,)})
NAN = math.nan


def case(name, *dices, group=None):
    """A case with the given Dice a label."""
    metrics = {
        str(label): {"Dice": dice, "HD95": 10 * dice, "n_pred": 5, "n_ref": 0 if math.isnan(dice) else 5}
        for label, dice in enumerate(dices, start=1)
    }
    for values in metrics.values():
        if math.isnan(values["Dice"]):
            values["n_pred"] = 0
    return CaseResult(f"references/{name}.nii.gz", f"predictions/{name}.nii.gz", metrics, group)


def write(path, array, spacing=(1.0, 1.0, 3.0), origin=(0.0, 0.0, 0.0)):
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folders(tmp_path):
    """Three references and their predictions; in the third one tumour voxel is missed."""
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        array = random.integers(0, 3, (4, 6, 7))
        write(tmp_path / "references" / f"{name}.nii.gz", array)
        if name == "c":
            array = array.copy()
            array.flat[np.flatnonzero(array == 2)[0]] = 0
        write(tmp_path / "predictions" / f"{name}.nii.gz", array)
    return tmp_path / "predictions", tmp_path / "references"


def evaluate(folders, tmp_path, labels=TWO, **options):
    return evaluate_folder(*folders, labels, ".nii.gz", 1, tmp_path / "summary.json", **options)


def test_means_leave_out_what_is_nan():
    summary = summarise([case("a", 0.5, NAN), case("b", 0.7, 0.9)], TWO)
    assert summary["mean"]["1"]["Dice"] == pytest.approx(0.6)
    assert summary["mean"]["2"]["Dice"] == pytest.approx(0.9)
    assert summary["foreground_mean"]["Dice"] == pytest.approx(0.75)
    assert summary["n_present"] == {"1": 2, "2": 1}
    assert summary["labels"] == {"1": "liver", "2": "tumour"}


def test_a_label_that_is_nowhere_is_left_out_of_the_foreground_mean():
    summary = summarise([case("a", 0.5, NAN), case("b", 0.7, NAN)], TWO)
    assert math.isnan(summary["mean"]["2"]["Dice"])
    assert summary["foreground_mean"]["Dice"] == pytest.approx(0.6)


def test_the_interval_is_seeded_holds_the_mean_and_narrows_with_more_cases():
    random = np.random.default_rng(1)
    many = [case(f"{index:03}", *random.uniform(0.5, 1, 2)) for index in range(200)]
    few = summarise(many[:10], TWO)
    low, high = few["interval"]["foreground_mean"]["Dice"]
    assert low < few["foreground_mean"]["Dice"] < high
    assert summarise(many[:10], TWO) == few
    narrow = np.ptp(summarise(many, TWO)["interval"]["foreground_mean"]["Dice"])
    assert narrow < (high - low) / 2


def test_the_interval_is_that_of_the_mean_of_many_cases():
    # For 400 cases the bootstrap must agree with mean +- 1.96 standard errors.
    dice = np.random.default_rng(2).uniform(0, 1, 400)
    summary = summarise([case(f"{index:03}", value) for index, value in enumerate(dice)], TWO)
    expected = dice.mean() + np.array([-1.96, 1.96]) * dice.std() / 20
    assert summary["interval"]["mean"]["1"]["Dice"] == pytest.approx(expected, abs=0.003)


def test_cases_of_one_patient_are_not_independent():
    # 40 slices of two patients, one easy and one hard, are not 40 cases.
    slices = [(f"{index:02}", 0.9 if index % 2 else 0.5, f"patient {index % 2}") for index in range(40)]
    alone = summarise([case(name, dice) for name, dice, _ in slices], TWO)
    grouped = summarise([case(name, dice, group=group) for name, dice, group in slices], TWO)
    assert (alone["n_groups"], grouped["n_groups"], grouped["n_cases"]) == (40, 2, 40)
    assert grouped["interval"]["mean"]["1"]["Dice"] == pytest.approx([0.5, 0.9])
    assert np.ptp(alone["interval"]["mean"]["1"]["Dice"]) < 0.2


def test_one_case_has_no_interval():
    low, high = summarise([case("a", 0.5, 0.6)], TWO)["interval"]["mean"]["1"]["Dice"]
    assert math.isnan(low)
    assert math.isnan(high)


def test_folds_merge_into_the_summary_of_all_their_cases():
    cases = [
        case(f"{index}", dice, 1 - dice, group=f"patient {index}")
        for index, dice in enumerate(np.linspace(0.1, 0.9, 5))
    ]
    folds = [summarise(cases[:1], TWO), summarise(cases[1:], TWO)]
    through_json = json.loads(json.dumps(folds[::-1]))
    assert json.dumps(merge(through_json)) == json.dumps(summarise(cases, TWO))
    # by case, not by fold:
    assert merge(folds)["mean"]["1"]["Dice"] == pytest.approx(0.5)


def test_a_summary_of_nnunet_can_be_merged():
    metrics = {"(1, 2)": {"Dice": 0.5, "IoU": 0.3, "FP": 1, "TP": 2, "FN": 3, "TN": 4, "n_pred": 3, "n_ref": 5}}
    theirs = {
        "foreground_mean": metrics["(1, 2)"],
        "mean": metrics,
        "metric_per_case": [{"reference_file": "a.png", "prediction_file": "p/a.png", "metrics": metrics}],
    }
    merged = merge([theirs])
    assert {key: merged[key] for key in theirs} == theirs
    assert merged["labels"] == {"(1, 2)": "(1, 2)"}


def test_a_case_in_two_folds_is_refused():
    with pytest.raises(UserError, match=r"a\.nii\.gz.*more than once"):
        merge([summarise([case("a", 0.5)], TWO), summarise([case("a", 0.6)], TWO)])


def test_cases_of_different_labels_are_refused():
    with pytest.raises(UserError, match=r"same dataset\.json"):
        summarise([case("a", 0.5), case("b", 0.5, 0.6)], TWO)


def test_no_cases_are_refused():
    with pytest.raises(UserError, match="no cases"):
        summarise([], TWO)


def test_a_folder_is_compared_by_file_name(folders, tmp_path):
    (folders[0] / "summary.json").write_text("{}")  # other files are left alone
    (folders[0] / ".half.nii.gz").write_text("")
    summary = evaluate(folders, tmp_path, groups={"a": "anna", "b": "anna"})

    assert summary["n_cases"] == 3
    assert summary["n_groups"] == 2
    assert summary["mean"]["1"]["Dice"] == 1
    assert 0.9 < summary["mean"]["2"]["Dice"] < 1
    assert [case["metrics"]["2"]["FN"] for case in summary["metric_per_case"]] == [0, 0, 1]
    assert summary["metric_per_case"][0] | {"metrics": None} == {
        "reference_file": str(folders[1] / "a.nii.gz"),
        "prediction_file": str(folders[0] / "a.nii.gz"),
        "group": "anna",
        "metrics": None,
    }
    assert json.loads((tmp_path / "summary.json").read_text()) == summary


def test_workers_give_the_same(folders, tmp_path):
    alone = evaluate(folders, tmp_path)
    assert evaluate_folder(*folders, TWO, ".nii.gz", 2, tmp_path / "other.json") == alone


def test_nan_is_written_as_nnunet_writes_it(folders, tmp_path):
    three = Labels(foreground={"liver": (1,), "tumour": (2,), "vessel": (3,)})
    evaluate(folders, tmp_path, three)
    assert '"Dice": NaN' in (tmp_path / "summary.json").read_text()


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda p, r: (p / "b.nii.gz").unlink(), r"predictions: no prediction for b\.nii\.gz"),
        (lambda p, r: (r / "b.nii.gz").unlink(), r"references: no reference for b\.nii\.gz"),
        (lambda p, r: write(p / "b.nii.gz", np.ones((4, 6, 8))), r"b\.nii\.gz: not on the grid of .*shape"),
        (lambda p, r: write(p / "b.nii.gz", np.ones((4, 6, 7)), origin=(5, 0, 0)), r"b\.nii\.gz.*origin"),
        (
            lambda p, r: write(p / "b.nii.gz", np.full((4, 6, 7), 9)),
            r"predictions/b\.nii\.gz: holds 9, .*0, 1, 2",
        ),
        (lambda p, r: write(r / "b.nii.gz", np.full((4, 6, 7), 9)), r"references/b\.nii\.gz: holds 9"),
        (lambda p, r: (p / "b.nii.gz").write_bytes(b"not an image"), r"b\.nii\.gz"),
        (lambda p, r: [path.unlink() for path in p.iterdir()], r"predictions: no \.nii\.gz file"),
        (lambda p, r: p.rename(p.with_name("moved")), "predictions: no such folder"),
    ],
)
def test_a_fault_is_one_clear_line_and_nothing_is_written(folders, tmp_path, fault, said):
    fault(*folders)
    with pytest.raises(UserError, match=said):
        evaluate(folders, tmp_path)
    assert not (tmp_path / "summary.json").exists()


def test_many_missing_files_are_counted_rather_than_listed(folders, tmp_path):
    for index in range(8):
        write(folders[1] / f"x{index}.nii.gz", np.zeros((4, 6, 7)))
    with pytest.raises(UserError, match=r"x4\.nii\.gz and 3 more"):
        evaluate(folders, tmp_path)


def test_labels_come_from_a_dataset_json(tmp_path):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({"labels": {"background": 0, "organ": 7}}))
    assert labels_from(path, [], ".png", 1).foreground == {"organ": (7,)}


@pytest.mark.parametrize("content", [{}, [], {"labels": {}}, {"labels": {"background": 3}}])
def test_a_dataset_json_without_labels_is_named(tmp_path, content):
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"dataset\.json.*labels"):
        labels_from(path, [], ".png", 1)


def test_labels_are_whatever_the_files_hold_without_a_dataset_json(folders):
    write(folders[0] / "b.nii.gz", np.full((4, 6, 7), 9))
    assert labels_from(None, folders, ".nii.gz", 1).foreground == {"1": (1,), "2": (2,), "9": (9,)}


def test_labels_of_empty_segmentations_are_refused(tmp_path):
    write(tmp_path / "references" / "a.nii.gz", np.zeros((4, 6, 7)))
    with pytest.raises(UserError, match=r"references: nothing but background"):
        labels_from(None, [tmp_path / "references"], ".nii.gz", 1)


def test_the_table_shows_a_row_a_label_with_intervals():
    console = Console(width=120)
    with console.capture() as printed:
        console.print(summary_table(summarise([case("a", 0.5, NAN), case("b", 0.7, NAN)], TWO)))
    text = printed.get()
    assert "Means over 2 cases" in text
    assert "0.600 (0.500–0.700)" in next(line for line in text.splitlines() if "liver" in line)
    assert "–" in next(line for line in text.splitlines() if "tumour" in line)
    assert "all labels" in text


def test_no_interval_is_cut_off_where_there_is_no_terminal(folders, tmp_path):
    console = Console(width=80)
    with console.capture() as printed:
        console.print(summary_table(evaluate(folders, tmp_path)))
    assert "…" not in printed.get()
    assert len(re.findall(r"\(\d+\.\d+–\d+\.\d+\)", printed.get())) == 3 * 4, "labels and their mean, four metrics"


def test_a_damaged_summary_is_told():
    with pytest.raises(UserError, match="damaged"):
        merge([{"mean": {}}])


def test_the_table_says_how_many_patients_there_are():
    cases = [case("a", 0.5, group="anna"), case("b", 0.7, group="anna"), case("c", 0.7)]
    assert summary_table(summarise(cases, TWO)).title == "Means over 3 cases of 2 groups, with 95% intervals"


REAL = [
    ("Dataset004_Hippocampus", ".nii.gz", "hippocampus_0*", 2),
    ("Dataset045_SunnybrookLV", ".nii.gz", "*", 1),
    ("Dataset046_SunnybrookSlices", ".png", "SC-HF-I-09*", 1),
]


@pytest.mark.skipif(not SHARED.exists(), reason=f"needs the real data in {SHARED}")
@pytest.mark.parametrize(("dataset", "ending", "pattern", "n_labels"), REAL)
def test_real_labels_agree_with_themselves(tmp_path, dataset, ending, pattern, n_labels):
    root = SHARED / "data" / dataset
    labels = labels_from(root / "dataset.json", [], ending, 1)
    for path in sorted((root / "labelsTr").glob(pattern + ending))[:4]:
        (tmp_path / path.name).symlink_to(path)
    summary = evaluate_folder(tmp_path, tmp_path, labels, ending, 1, tmp_path / "summary.json")
    assert len(summary["mean"]) == n_labels
    for mean in summary["mean"].values():
        assert (mean["Dice"], mean["NSD"], mean["HD95"], mean["FP"], mean["FN"]) == (1, 1, 0, 0, 0)
    for row in summary["metric_per_case"]:
        assert all(metrics["n_ref"] > 0 or math.isnan(metrics["Dice"]) for metrics in row["metrics"].values())
