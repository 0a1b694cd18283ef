"""The files that the script for 3D Slicer reads and writes; its panel needs 3D Slicer."""

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from autocrossdim.records.colours import PALETTE

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "slicer" / "review.py"


@pytest.fixture(scope="module")
def review() -> ModuleType:
    spec = importlib.util.spec_from_file_location("review", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["review"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def folders(review: ModuleType, make_dataset: Callable[..., Path], tmp_path: Path) -> Any:
    """Predictions of four cases with uncertainty, of which one was annotated in the meantime."""
    dataset = make_dataset(cases=("done",), channels=2, labels={"background": 0, "whole": [1, 2], "core": 2})
    images, output = tmp_path / "images", tmp_path / "out"
    (output / "uncertainty").mkdir(parents=True)
    images.mkdir()
    for name in ("a", "b", "done", "unlisted"):
        for channel in range(2):
            (images / f"{name}_{channel:04d}.nii.gz").write_text(f"{name}{channel}", encoding="utf-8")
        (output / f"{name}.nii.gz").write_text(name, encoding="utf-8")
        for kind in ("entropy", "disagreement"):
            (output / "uncertainty" / f"{name}_{kind}.nii.gz").touch()
    (output / "uncertainty.csv").write_text("case,expected_dice\nb,0.5\ndone,0.6\na,\ngone,0.9\n", encoding="utf-8")
    return review.Folders(images, output, dataset)


def test_cases_come_in_the_order_of_the_list_without_those_that_are_done(folders: Any) -> None:
    cases = folders.cases()
    assert [case.name for case in cases] == ["b", "a", "unlisted"]
    assert [image.name for image in cases[0].images] == ["b_0000.nii.gz", "b_0001.nii.gz"]
    assert [path.name for path in cases[0].maps] == ["b_disagreement.nii.gz", "b_entropy.nii.gz"]
    assert [case.expected_dice for case in cases] == ["0.5", "", ""]
    (folders.segmentations / "uncertainty.csv").unlink()
    assert [case.name for case in folders.cases()] == ["a", "b", "unlisted"]


def test_of_the_drafts_of_annotate_next_the_suggested_ones_come_first(folders: Any) -> None:
    drafts = folders.segmentations.rename(folders.segmentations.with_name("annotate_next"))
    (drafts / "uncertainty.csv").unlink()
    drafts.with_suffix(".csv").write_text("rank,case,expected_dice\n1,unlisted,0.7\n2,b,\n", encoding="utf-8")
    cases = replace(folders, segmentations=drafts).cases()
    assert [(case.name, case.expected_dice) for case in cases] == [("unlisted", "0.7"), ("b", ""), ("a", "")]


def test_slices_that_were_neither_suggested_nor_changed_are_saved_without_labels(folders: Any) -> None:
    drafts = folders.segmentations.rename(folders.segmentations.with_name("annotate_next"))
    rows = ("case,slice_axis,slices,expected_dice", "a,y,0 2,0.7", "b,,,0.6")
    drafts.with_suffix(".csv").write_text("\n".join(rows), encoding="utf-8")
    sparse, complete, _ = replace(folders, segmentations=drafts).cases()
    draft = np.ones((2, 4, 3), np.uint8)
    label = draft.copy()
    label[0, 1, 0] = 2  # corrected, although it was not suggested
    sparse.clear_unchecked(draft, label)
    assert (label == 0).all(axis=(0, 2)).tolist() == [False, False, False, True]
    assert label[0, 1].tolist() == [2, 1, 1]
    complete.clear_unchecked(draft, draft)
    assert draft.all()


def test_a_correction_becomes_a_training_case(folders: Any) -> None:
    case = folders.cases()[0]
    label = folders.add(case, lambda path: path.write_text("corrected", encoding="utf-8"))
    assert label == folders.dataset / "labelsTr" / "b.nii.gz"
    assert label.read_text(encoding="utf-8") == "corrected"
    copies = [folders.dataset / "imagesTr" / f"b_000{channel}.nii.gz" for channel in range(2)]
    assert [copy.read_text(encoding="utf-8") for copy in copies] == ["b0", "b1"]
    assert [each.name for each in folders.cases()] == ["a", "unlisted"]
    with pytest.raises(FileExistsError, match=r"b\.nii\.gz exists already"):
        folders.add(case, lambda path: path.write_text("again", encoding="utf-8"))
    assert label.read_text(encoding="utf-8") == "corrected"


def test_a_label_that_cannot_be_written_leaves_nothing_half_done(folders: Any) -> None:
    def fail(path: Path) -> None:
        path.write_text("half", encoding="utf-8")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        folders.add(folders.cases()[0], fail)
    assert sorted(path.name for path in (folders.dataset / "labelsTr").iterdir()) == ["done.nii.gz"]
    assert folders.cases()[0].name == "b"


def test_segments_have_the_values_of_the_dataset_and_the_colours_of_the_report(review: Any, folders: Any) -> None:
    assert folders.values() == {1: "whole", 2: "whole + core"}
    assert review.COLOURS == PALETTE
    description = {"file_ending": ".nii.gz", "labels": {"background": 0, "b": 7, "a": 2, "ignore": 8}}
    (folders.dataset / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    assert folders.values() == {2: "a", 7: "b"}
