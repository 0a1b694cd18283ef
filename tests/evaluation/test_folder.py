import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

import autocrossdim
from autocrossdim.data.dataset import load_dataset
from autocrossdim.evaluation.folder import Pair, evaluate_case, evaluate_folder, labels_in
from autocrossdim.records.labels import Labels
from autocrossdim.records.summary import Summary
from autocrossdim.system.errors import UserError

TWO = Labels(foreground={"liver": (1,), "tumour": (2,)})

Folders = tuple[Path, Path]


def write(path: Path, array: np.ndarray, origin: tuple[float, ...] = (0.0, 0.0, 0.0)) -> None:
    image = sitk.GetImageFromArray(array.astype(np.uint8))
    image.SetSpacing((1.0, 1.0, 3.0))
    image.SetOrigin(origin)
    path.parent.mkdir(exist_ok=True)
    sitk.WriteImage(image, str(path))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Predictions and references of three cases; in the third, one tumour voxel is not predicted."""
    random = np.random.default_rng(0)
    for name in ("a", "b", "c"):
        array = random.integers(0, 3, (4, 6, 7))
        write(tmp_path / "references" / f"{name}.nii.gz", array)
        if name == "c":
            array = array.copy()
            array.flat[np.flatnonzero(array == 2)[0]] = 0
        write(tmp_path / "predictions" / f"{name}.nii.gz", array)
    return tmp_path / "predictions", tmp_path / "references"


def evaluate(folders: Folders, output: Path, labels: Labels = TWO, **options: Any) -> Summary:
    options = {"file_ending": ".nii.gz", "processes": 1, "output": output, **options}
    return evaluate_folder(*folders, labels, **options)


def test_folders_in_the_order_of_nnunet_are_reported(
    folders: Folders, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folders[0] / "origin").mkdir()
    evaluate(folders, tmp_path / "summary.json")
    assert "was written by" not in caplog.text
    evaluate(folders[::-1], tmp_path / "summary.json")
    assert f"{folders[0]} was written by `predict`, but is given as the references" in caplog.text
    caplog.clear()
    (folders[1] / "origin").mkdir()  # two predictions compared with each other
    evaluate(folders[::-1], tmp_path / "summary.json")
    assert "was written by" not in caplog.text


def test_no_summary_is_written_beside_references_given_first(folders: Folders, tmp_path: Path) -> None:
    (folders[0] / "origin").mkdir()
    with pytest.raises(UserError, match=r"predictions was written by `predict`.* Give the predictions first"):
        autocrossdim.evaluate(*folders[::-1], processes=1)
    assert {file.suffix for file in folders[1].iterdir()} == {".gz"}
    autocrossdim.evaluate(*folders[::-1], output=tmp_path / "summary.json", processes=1)
    assert (tmp_path / "summary.json").exists()
    autocrossdim.evaluate(*folders, processes=1)
    assert (folders[0] / "summary.json").exists()


def test_files_of_the_same_name_are_compared(folders: Folders, tmp_path: Path) -> None:
    (folders[0] / "summary.json").write_text("{}")  # other files are ignored
    (folders[0] / ".half.nii.gz").write_text("")
    summary = evaluate(folders, tmp_path / "summary.json", groups={"a": "anna", "b": "anna"})

    assert summary.n_cases == 3
    assert summary.n_groups == 2
    assert summary.mean["1"]["Dice"] == 1
    assert 0.9 < summary.mean["2"]["Dice"] < 1
    assert [case.metrics["2"]["FN"] for case in summary.metric_per_case] == [0, 0, 1]
    first = summary.metric_per_case[0]
    assert (first.reference_file, first.prediction_file) == tuple(str(f / "a.nii.gz") for f in folders[::-1])
    assert (first.group, first.unit) == ("anna", "mm")
    assert Summary.read(tmp_path / "summary.json") == summary


def test_worker_processes_give_the_same_summary(folders: Folders, tmp_path: Path) -> None:
    assert evaluate(folders, tmp_path / "two.json", processes=2) == evaluate(folders, tmp_path / "one.json")


def test_distances_of_pictures_are_in_pixels(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    square = np.zeros((9, 9), np.uint8)
    square[2:5, 2:5] = 1
    picture = write_image(tmp_path / "a.png", square)
    labels = Labels(foreground={"square": (1,)})
    assert evaluate_case(Pair(picture, picture), labels).unit == "pixels"
    scan = write_image(tmp_path / "a.nii.gz", square[None])
    assert evaluate_case(Pair(scan, scan), labels).unit == "mm"


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda p, r: (p / "b.nii.gz").unlink(), r"predictions: no prediction for b\.nii\.gz.*--skip-missing"),
        (lambda p, r: (r / "b.nii.gz").unlink(), r"references: no reference for b\.nii\.gz"),
        (lambda p, r: write(p / "b.nii.gz", np.ones((4, 6, 8))), r"b\.nii\.gz: not on the grid of .*shape"),
        (lambda p, r: write(p / "b.nii.gz", np.ones((4, 6, 7)), origin=(5, 0, 0)), r"b\.nii\.gz.*origin"),
        (
            lambda p, r: write(p / "b.nii.gz", np.full((4, 6, 7), 9)),
            r"predictions/b\.nii\.gz: contains the value 9, .*0, 1, 2",
        ),
        (lambda p, r: write(r / "b.nii.gz", np.full((4, 6, 7), 9)), r"references/b\.nii\.gz: contains the value 9"),
        (lambda p, r: (p / "b.nii.gz").write_bytes(b"not an image"), r"b\.nii\.gz"),
        (lambda p, r: [path.unlink() for path in p.iterdir()], r"predictions: contains no \.nii\.gz file"),
        (lambda p, r: p.rename(p.with_name("moved")), "predictions: no such directory"),
    ],
)
def test_a_fault_is_one_clear_error_and_nothing_is_written(
    folders: Folders, tmp_path: Path, fault: Callable[[Path, Path], object], message: str
) -> None:
    fault(*folders)
    with pytest.raises(UserError, match=message):
        evaluate(folders, tmp_path / "summary.json")
    assert not (tmp_path / "summary.json").exists()


def test_cases_without_a_prediction_are_skipped_on_request_and_listed(folders: Folders, tmp_path: Path) -> None:
    (folders[0] / "c.nii.gz").unlink()
    summary = evaluate(folders, tmp_path / "summary.json", skip_missing=True)
    assert summary.skipped == ("c.nii.gz",)
    assert [case.file for case in summary.metric_per_case] == ["a.nii.gz", "b.nii.gz"]
    assert json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))["skipped"] == ["c.nii.gz"]


def test_a_prediction_without_a_reference_is_never_skipped(folders: Folders, tmp_path: Path) -> None:
    (folders[1] / "b.nii.gz").unlink()
    with pytest.raises(UserError, match="no reference for b"):
        evaluate(folders, tmp_path / "summary.json", skip_missing=True)


def test_many_missing_files_are_counted_rather_than_listed(folders: Folders, tmp_path: Path) -> None:
    for index in range(8):
        write(folders[1] / f"x{index}.nii.gz", np.zeros((4, 6, 7)))
    with pytest.raises(UserError, match=r"x4\.nii\.gz and 3 more"):
        evaluate(folders, tmp_path / "summary.json")


SPARSE = Labels(foreground={"liver": (1,), "tumour": (2,)}, unannotated_slices="empty")


def test_only_annotated_slices_count(tmp_path: Path) -> None:
    """Each slice is 3 mm thick. The prediction is right in slices 0 and 2, and wrong in the others."""
    reference = np.zeros((4, 6, 7), np.uint8)
    reference[0, 1:4, 1:4], reference[2, 2:5, 2:5] = 1, 2
    prediction = reference.copy()
    prediction[1], prediction[3, :2] = 2, 1
    write(tmp_path / "references" / "a.nii.gz", reference)
    write(tmp_path / "predictions" / "a.nii.gz", prediction)
    folders = tmp_path / "predictions", tmp_path / "references"

    summary = evaluate(folders, tmp_path / "sparse.json", SPARSE)
    for key in ("1", "2"):
        metrics = summary.metric_per_case[0].metrics[key]
        assert (metrics["Dice"], metrics["HD95"], metrics["FP"], metrics["n_ref"]) == (1, 0, 0, 9)
        assert metrics["TN"] == 2 * 6 * 7 - 9
    assert summary.metric_per_case[0].annotated_slices == (2, 4)
    assert (
        json.loads((tmp_path / "sparse.json").read_text(encoding="utf-8"))["scope"] == "annotated slices only (2 of 4)"
    )
    assert Summary.read(tmp_path / "sparse.json").metric_per_case == summary.metric_per_case

    dense = evaluate(folders, tmp_path / "dense.json")
    assert dense.metric_per_case[0].metrics["2"]["FP"] == 42
    assert dense.scope is None
    written = json.loads((tmp_path / "dense.json").read_text(encoding="utf-8"))
    assert "scope" not in written
    assert "annotated_slices" not in written["metric_per_case"][0]


def test_a_value_that_stands_for_unannotated_voxels_is_not_accepted_in_a_file(tmp_path: Path) -> None:
    write(tmp_path / "references" / "a.nii.gz", np.full((4, 6, 7), SPARSE.unannotated))
    write(tmp_path / "predictions" / "a.nii.gz", np.ones((4, 6, 7)))
    with pytest.raises(UserError, match="contains the value 3"):
        evaluate((tmp_path / "predictions", tmp_path / "references"), tmp_path / "s.json", SPARSE)


def test_labels_that_were_not_annotated_in_a_case_do_not_count(folders: Folders, tmp_path: Path) -> None:
    """Every case has both labels predicted; tumour is not annotated in a and b."""
    for name in ("a", "b"):
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(folders[1] / f"{name}.nii.gz")))
        write(folders[1] / f"{name}.nii.gz", np.where(array == 2, 0, array))
    everywhere = evaluate(folders, tmp_path / "s.json")
    assert everywhere.n_false_alarms == {"1": 0, "2": 2}
    assert not everywhere.is_partial

    summary = evaluate(folders, tmp_path / "s.json", annotated_labels={"a": ("liver",), "b": ("liver",)})
    assert summary.n_annotated == {"1": 3, "2": 1}
    assert summary.n_present == {"1": 3, "2": 1}
    assert summary.n_false_alarms == {"1": 0, "2": 0}
    assert summary.mean["2"] == pytest.approx(
        everywhere.metric_per_case[2].metrics["2"]
        | {"HD95_found": summary.mean["2"]["HD95_found"], "ASSD_found": summary.mean["2"]["ASSD_found"]}
    )
    assert summary.mean["1"]["Dice"] == everywhere.mean["1"]["Dice"] == 1
    assert all(math.isnan(value) for value in summary.metric_per_case[0].metrics["2"].values())
    assert summary.metric_per_case[0].dice == 1
    assert Summary.read(tmp_path / "s.json").n_annotated == summary.n_annotated


def test_without_dataset_json_every_value_in_the_files_is_a_label(folders: Folders) -> None:
    write(folders[0] / "b.nii.gz", np.full((4, 6, 7), 9))
    labels = labels_in(folders, file_ending=".nii.gz", processes=1)
    assert labels.foreground == {"1": (1,), "2": (2,), "9": (9,)}


def test_segmentations_without_any_label_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "references" / "a.nii.gz", np.zeros((4, 6, 7)))
    with pytest.raises(UserError, match=r"references: the \.nii\.gz files contain nothing but background"):
        labels_in([tmp_path / "references"], file_ending=".nii.gz", processes=1)


REAL = [
    ("Dataset004_Hippocampus", ".nii.gz", "hippocampus_0*", 2),
    ("Dataset045_SunnybrookLV", ".nii.gz", "*", 1),
    ("Dataset046_SunnybrookSlices", ".png", "SC-HF-I-09*", 1),
]


@pytest.mark.parametrize(("dataset", "ending", "pattern", "n_labels"), REAL)
def test_real_labels_agree_with_themselves(
    real_data: Path, tmp_path: Path, dataset: str, ending: str, pattern: str, n_labels: int
) -> None:
    root = real_data / dataset
    labels = load_dataset(root).labels
    for path in sorted((root / "labelsTr").glob(pattern + ending))[:4]:
        (tmp_path / path.name).symlink_to(path)
    summary = evaluate((tmp_path, tmp_path), tmp_path / "summary.json", labels, file_ending=ending)
    assert len(summary.mean) == n_labels
    for mean in summary.mean.values():
        assert (mean["Dice"], mean["NSD"], mean["HD95"], mean["FP"], mean["FN"]) == (1, 1, 0, 0, 0)
    for case in summary.metric_per_case:
        assert all(metrics["n_ref"] > 0 or math.isnan(metrics["Dice"]) for metrics in case.metrics.values())
    assert summary.unit == ("pixels" if ending == ".png" else "mm")
