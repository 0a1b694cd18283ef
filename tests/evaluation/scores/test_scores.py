from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from rich.console import Console

import autocrossdim
from autocrossdim.data.images import read_label, write_label
from autocrossdim.evaluation.folder import evaluate_folder
from autocrossdim.evaluation.registry import Case
from autocrossdim.evaluation.scores import SCORES
from autocrossdim.records.labels import Labels
from autocrossdim.records.score import ScoreName
from autocrossdim.records.summary import Summary
from autocrossdim.report.terminal import summary_text
from autocrossdim.system.errors import UserError

Folders = tuple[Path, Path]


@pytest.fixture
def folders(tmp_path: Path, write_image: Callable[..., Path]) -> Folders:
    """Predictions and references of two cases; in the second, the smaller lesion is missed."""
    for name in ("a", "b"):
        array = np.zeros((5, 20, 20), np.uint8)
        array[1:4, 2:9, 2:9] = array[1:4, 14:18, 14:18] = 1
        write_image(tmp_path / "references" / f"{name}.nii.gz", array, (2, 1, 1))
        if name == "b":
            array[:, 14:] = 0
        write_image(tmp_path / "predictions" / f"{name}.nii.gz", array, (2, 1, 1))
    return tmp_path / "predictions", tmp_path / "references"


def test_every_score_is_offered_on_the_command_line() -> None:
    assert sorted(SCORES) == sorted(get_args(ScoreName))


def test_a_score_is_in_the_summary_and_in_the_printed_tables(folders: Folders) -> None:
    summary = autocrossdim.evaluate(*folders, score="lesions", processes=1)
    assert summary.score is not None
    assert summary.score.cases["b"]["1"] == {"lesions": 2, "found": 1, "false positives": 0, "Dice": 1}
    assert Summary.read(folders[0] / "summary.json") == summary

    console = Console(width=80, record=True, quiet=True)
    with console.capture() as captured:
        console.quiet = False
        console.print(summary_text(summary))
    lines = [line.split() for line in captured.get().splitlines()]
    assert ["1", "4", "3", "0.750", "0", "0.000", "1.000"] in lines


def test_two_dimensional_files_are_scored_with_their_spacing(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for name, rows in (("2CH_ED", 60), ("4CH_ED", 60), ("2CH_ES", 40), ("4CH_ES", 40)):
        array = np.zeros((90, 60), np.uint8)
        array[3 : 3 + rows + 6, 12:48], array[6 : 6 + rows, 15:45], array[80:, 15:45] = 2, 1, 3
        write_image(tmp_path / f"patient0007_{name}.nii.gz", array, (0.5, 0.8))
    labels = Labels.from_dataset_json({"LV endocardium": 1, "LV myocardium": 2, "left atrium": 3})
    output = tmp_path / "summary.json"
    evaluate_folder(
        tmp_path, tmp_path, labels, file_ending=".nii.gz", processes=1, output=output, score=SCORES["camus"]
    )
    score = Summary.read(output).score
    assert score is not None
    assert score.notes == ()
    heart = score.cases["patient0007"]
    # Rectangles of 24 mm x 30 mm stand for elliptic cylinders, cut along their longer side.
    assert heart["EDV (ml)"]["reference"] == pytest.approx(np.pi / 4 * 24 * 24 * 30 / 1000, rel=0.1)
    assert heart["EDV (ml)"]["prediction"] == heart["EDV (ml)"]["reference"]
    assert score.tables[0].rows["LV epicardium, ES"] == {"Dice": 1, "HD (mm)": 0, "MAD (mm)": 0}


def test_a_summary_without_a_score_says_nothing_of_it(folders: Folders) -> None:
    summary = autocrossdim.evaluate(*folders, processes=1)
    assert summary.score is None
    assert '"score"' not in (folders[0] / "summary.json").read_text(encoding="utf-8")


def test_a_score_that_cannot_be_computed_is_one_clear_error(
    folders: Folders, tmp_path: Path, write_image: Callable[..., Path]
) -> None:
    with pytest.raises(UserError, match=r"--score dice: no such score\. Choose one of"):
        autocrossdim.evaluate(*folders, score="dice", processes=1)
    with pytest.raises(UserError, match="named as WT, TC, ET; the labels are 1"):
        autocrossdim.evaluate(*folders, score="brats", processes=1)
    picture = np.zeros((9, 9), np.uint8)
    picture[2:5, 2:5] = 1
    for folder in ("predicted", "expected"):
        write_image(tmp_path / folder / "a.png", picture)
    with pytest.raises(UserError, match=r"expected/a\.png: has no voxel spacing"):
        autocrossdim.evaluate(tmp_path / "predicted", tmp_path / "expected", score="chaos", processes=1)
    assert not (folders[0] / "summary.json").exists()


def test_unannotated_slices_are_left_out(folders: Folders) -> None:
    labels = Labels(foreground={"lesion": (1,)}, unannotated_slices="empty")
    for name in ("a", "b"):
        array, geometry = read_label(folders[0] / f"{name}.nii.gz")
        array[0, 2:9, 2:9] = 1  # in a slice that was not annotated
        array[4, 10:12, 10:12] = 1
        write_label(array, geometry, folders[0] / f"{name}.nii.gz")
    output = folders[0] / "summary.json"
    score = evaluate_folder(
        *folders, labels, file_ending=".nii.gz", processes=1, output=output, score=SCORES["chaos"]
    ).score
    assert score is not None
    assert score.cases["a"]["lesion"]["Dice"] == 1


@pytest.mark.parametrize("name", ["lesions", "brats"])
def test_lesions_that_unannotated_slices_would_cut_are_refused(folders: Folders, name: str) -> None:
    regions = {"background": 0, "WT": [1, 2, 3], "TC": [2, 3], "ET": 3}
    labels = Labels.from_dataset_json(regions, [2, 3, 1]).model_copy(update={"unannotated_slices": "empty"})
    options: dict[str, Any] = {"file_ending": ".nii.gz", "processes": 1, "output": folders[0] / "summary.json"}
    with pytest.raises(UserError, match=rf"--score {name}: .*unannotated_slices in dataset\.json.*--all-slices"):
        evaluate_folder(*folders, labels, score=SCORES[name], **options)
    assert not options["output"].exists()
    every_slice = labels.model_copy(update={"unannotated_slices": None})
    assert evaluate_folder(*folders, every_slice, score=SCORES[name], **options).score is not None


@pytest.mark.parametrize("name", ["chaos", "lesions"])
def test_references_with_ignored_voxels_are_refused(folders: Folders, name: str) -> None:
    """A hole in a structure adds to its surface, and may cut it into several."""
    labels = Labels(foreground={"lesion": (1,)}, ignore=2)
    options: dict[str, Any] = {"file_ending": ".nii.gz", "processes": 1, "output": folders[0] / "summary.json"}
    assert evaluate_folder(*folders, labels, score=SCORES[name], **options).score is not None
    array, geometry = read_label(folders[1] / "b.nii.gz")
    array[0, 0, 0] = 2
    write_label(array, geometry, folders[1] / "b.nii.gz")
    with pytest.raises(UserError, match=rf"\S+/b\.nii\.gz: some voxels have the label 'ignore'.*--score {name}"):
        evaluate_folder(*folders, labels, score=SCORES[name], **options)


def test_cases_with_labels_that_were_not_annotated_are_refused(folders: Folders) -> None:
    labels = Labels(foreground={"lesion": (1,), "organ": (2,)})
    with pytest.raises(UserError, match=r"not all labels were annotated in \S+/b\.nii\.gz"):
        evaluate_folder(
            *folders,
            labels,
            file_ending=".nii.gz",
            processes=1,
            output=folders[0] / "summary.json",
            annotated_labels={"b": ("lesion",)},
            score=SCORES["lesions"],
        )


def test_ignored_voxels_are_in_no_mask() -> None:
    reference = np.array([[1, 2, 0, 1]], np.uint8)
    case = Case("a", np.array([[1, 1, 1, 0]], np.uint8), reference, (1.0, 1.0), {"lesion": (1,)}, ignore=2)
    ((_, predicted, expected),) = case.masks()
    assert predicted.tolist() == [[True, False, True, False]]
    assert expected.tolist() == [[True, False, False, True]]
