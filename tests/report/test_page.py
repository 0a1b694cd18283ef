"""The page says what is known at every stage, with everything it shows inside, and runs nothing."""

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autocrossdim import api
from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.images import read_label, write_label
from autocrossdim.evaluation.metrics import case_metrics
from autocrossdim.evaluation.summary import CaseResult, case_results, summarise
from autocrossdim.preprocessing.fingerprint import extract
from autocrossdim.records.best import Best, Contender, checkpoint_digests, plan_digest
from autocrossdim.records.labels import Labels
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import Workspace
from autocrossdim.report.pictures import case_picture
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json, write_text

CASES = ("a", "b", "c", "d", "e", "f")
NAMES = {"background": 0, "block <b>": 1, "rare": 2}  # a name that would be markup
GROUPS = {case: f"patient {case}" for case in CASES}


@pytest.fixture
def planned(make_dataset: Callable[..., Path], make_plan: Callable[..., Any], tmp_path: Path) -> tuple[Path, Workspace]:
    """A dataset that was planned: six cases, every second one without the rare label."""
    path = make_dataset(cases=CASES, labels=NAMES, shape=(6, 20, 18), spacing=(4.0, 1.0, 1.5), groups=GROUPS)
    for case in CASES[::2]:
        array, geometry = read_label(path / "labelsTr" / f"{case}.nii.gz")
        write_label(np.where(array == 2, 0, array), geometry, path / "labelsTr" / f"{case}.nii.gz")
    raw = load_dataset(path)
    space = Workspace.of(raw.name, tmp_path / "work")
    fingerprint, _ = extract(raw, 1)
    fingerprint.write(space.fingerprint)
    make_plan(labels=raw.labels, channel_names=raw.channel_names).write(space.plan)
    return path, space


@pytest.fixture
def trained(planned: tuple[Path, Workspace]) -> tuple[Path, Workspace]:
    """The same after a cross-validation whose segmentations miss more slices from case to case."""
    path, space = planned
    raw = load_dataset(path)
    folds = [CASES[:2], CASES[2:4], CASES[4:]]
    splits = [{"train": [case for case in CASES if case not in fold], "val": list(fold)} for fold in folds]
    write_json(space.splits, splits)
    results = []
    for number, fold in enumerate(folds):
        folder = space.fold("dx", number)
        for case in fold:
            reference, prediction = path / "labelsTr" / f"{case}.nii.gz", folder.validation / f"{case}.nii.gz"
            array, geometry = read_label(reference)
            found = array.copy()
            found[: CASES.index(case)] = 0
            write_label(found, geometry, prediction)
            metrics = case_metrics(found, array, raw.labels, geometry.spacing)
            results.append(CaseResult(str(reference), str(prediction), metrics, GROUPS[case]))
        write_json(folder.validation / "summary.json", summarise(results[-2:], raw.labels))
        folder.history.write_text(json.dumps({"epoch": 1, "seconds": 90.0}) + "\n")
        twin = folder.root.parent / "slices" / f"fold_{number}" / "history.jsonl"
        write_text(twin, json.dumps({"epoch": 1, "seconds": 60.0}) + "\n")
        folder.latest.write_bytes(b"%d" % number)
    write_json(space.model("dx") / "summary.json", summarise(results, raw.labels))
    return path, space


def page_of(path: Path, space: Workspace) -> str:
    return api.report(path, space.root.parent).read_text(encoding="utf-8")


def test_before_training_it_tells_data_and_decision(planned: tuple[Path, Workspace]) -> None:
    page = page_of(*planned)
    assert "6 annotated 3D cases" in page
    assert "Nothing is trained and validated yet" in page
    assert "A test." in page  # the decision's reason


def test_after_a_cross_validation_it_tells_results_and_their_limits(trained: tuple[Path, Workspace]) -> None:
    page = page_of(*trained)
    assert "Held-out results of dx" in page
    assert "rare is in 3 of 6 cases only" in page
    assert "All this rests on 6 cases" in page
    assert "find_best" in page
    assert page.index("lowest Dice: f") < page.index("next lowest: ") < page.index("highest Dice: a")
    assert "1 epochs after 1 in 2D, 2.5 minutes" in page


def test_everything_is_inside_and_nothing_of_the_dataset_is_markup(trained: tuple[Path, Workspace]) -> None:
    page = page_of(*trained)
    sources = re.findall(r'(?:src|href)="([^"]*)"', page)
    assert len(sources) == 5  # the chart and four cases
    assert all(source.startswith("data:image/png;base64,iVBOR") for source in sources)
    assert "block &lt;b&gt;" in page
    assert "block <b>" not in page
    assert "<script" not in page


def test_with_best_json_it_tells_the_choice_and_whether_it_still_holds(trained: tuple[Path, Workspace]) -> None:
    path, space = trained
    plan = Plan.read(space.plan)
    Best(
        dataset=plan.dataset,
        configurations=("dx",),
        folds=(0, 1, 2),
        dice_postprocessed=0.7,
        contenders=(Contender(name="dx", configurations=("dx",), multiply_adds=10**9, dice=0.71),),
        reasons=("dx is the only one.",),
        plan_digest=plan_digest(plan, ["dx"]),
        checkpoints=checkpoint_digests(space, ["dx"], (0, 1, 2)),
    ).write(space.best)
    page = page_of(path, space)
    assert "dx is the only one." in page
    assert "little too good" in page
    assert "run it again" not in page
    space.fold("dx", 1).latest.write_bytes(b"trained further")
    assert "run it again" in page_of(path, space)


def test_folds_that_are_not_counted_are_named(trained: tuple[Path, Workspace]) -> None:
    path, space = trained
    assert "Not all folds" not in page_of(path, space)
    file = space.model("dx") / "summary.json"
    summary = read_json(file)
    kept = [case for case in case_results(summary) if not case.file.startswith("e")]
    write_json(file, summarise(kept, load_dataset(path).labels))
    assert "Not all folds are counted: fold 2" in page_of(path, space)


def test_a_label_that_is_missing_hides_no_distance(trained: tuple[Path, Workspace]) -> None:
    """Case e has both labels, c only the first; a label that is nowhere has no distance."""
    page = page_of(*trained)
    rows = dict(re.findall(r"<tr><td>([a-f])</td>.*?<td class=\"n\">([^<]*)</td></tr>", page))
    assert set(rows) == set(CASES)
    assert all(float(value) >= 0 for value in rows.values())


def test_files_that_have_moved_are_named_and_the_rest_is_told(trained: tuple[Path, Workspace]) -> None:
    path, space = trained
    (path / "labelsTr" / "f.nii.gz").unlink()
    (space.fold("dx", 0).validation / "a.nii.gz").unlink()
    page = page_of(path, space)
    assert "is not where it was: f, a." in page
    assert "Held-out results" in page


def test_a_damaged_history_or_summary_is_named(trained: tuple[Path, Workspace]) -> None:
    path, space = trained
    space.fold("dx", 1).history.write_text("{")
    with pytest.raises(UserError, match=r"fold_1/history\.jsonl: damaged"):
        page_of(path, space)
    write_json(space.model("dx") / "summary.json", {"metric_per_case": [{}]})
    with pytest.raises(UserError, match=r"damaged"):
        page_of(path, space)


@pytest.mark.parametrize("shape", [(1, 30, 20), (8, 30, 20), (30, 8, 20)])
@pytest.mark.parametrize("empty", [True, False])
def test_a_case_is_drawn_whatever_its_shape(
    shape: tuple[int, int, int], empty: bool, write_image: Callable[..., Path], tmp_path: Path
) -> None:
    spacing = tuple(5.0 if n == min(shape) else 1.0 for n in shape)
    label = np.zeros(shape, np.uint8)
    if not empty:
        label[tuple(slice(n // 3, n // 2 + 1) for n in shape)] = 1
    image = write_image(tmp_path / "image.nii.gz", label * 9.0, spacing)
    reference = write_image(tmp_path / "label.nii.gz", label, spacing)
    drawn = picture(image, reference, reference, Labels.from_dataset_json({"background": 0, "block": 1}))
    assert min(drawn.shape[:2]) > 200


def picture(image: Path, reference: Path, prediction: Path, labels: Labels) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(case_picture([image], reference, prediction, labels))).convert("RGB"))


def test_a_region_is_outlined_as_a_whole_and_nothing_where_the_truth_is_to_be_ignored(
    write_image: Callable[..., Path], tmp_path: Path
) -> None:
    inner, whole = np.zeros((2, 1, 40, 40), np.uint8)
    whole[0, 10:30, 10:30], inner[0, 15:25, 15:25] = 1, 1
    image = write_image(tmp_path / "image.nii.gz", whole * 5.0)
    nested = write_image(tmp_path / "nested.nii.gz", whole + 2 * inner)
    other = write_image(tmp_path / "other.nii.gz", np.where(inner, 3, 2 * whole).astype(np.uint8))
    regions = Labels.from_dataset_json({"background": 0, "whole": [1, 2, 3], "core": 3}, [1, 3])
    np.testing.assert_array_equal(picture(image, nested, nested, regions), picture(image, nested, other, regions))
    exclusive = Labels.from_dataset_json({"background": 0, "a": 1, "ignore": 2})
    ignored = write_image(tmp_path / "ignored.nii.gz", np.where(inner, 1, 2).astype(np.uint8))
    small, large = (write_image(tmp_path / f"{n}.nii.gz", array) for n, array in enumerate((inner, whole)))
    np.testing.assert_array_equal(picture(image, ignored, small, exclusive), picture(image, ignored, large, exclusive))
