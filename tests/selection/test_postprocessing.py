from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import write_label
from autocrossdim.evaluation.folder import Pair, evaluate_case
from autocrossdim.evaluation.summary import summarise
from autocrossdim.inference.postprocess import postprocess
from autocrossdim.records.best import KeepLargest
from autocrossdim.records.labels import Labels
from autocrossdim.records.summary import Summary
from autocrossdim.selection.postprocessing import choose_postprocessing, possible_steps

CLASSES = Labels.from_dataset_json({"background": 0, "liver": 1, "tumour": 2})
REGIONS = Labels.from_dataset_json({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rim": [3]}, [1, 2, 3])

small_labels = arrays(np.uint8, st.tuples(*[st.integers(1, 5)] * 3), elements=st.integers(0, 3))


def line(*values: int) -> np.ndarray:
    """A label image of one row."""
    return np.array(values, np.uint8).reshape(1, 1, -1)


def test_only_the_largest_component_is_kept() -> None:
    found = postprocess(line(1, 0, 1, 1, 0, 2, 2, 2), [KeepLargest(name="liver", values=(1,))])
    np.testing.assert_array_equal(found, line(0, 0, 1, 1, 0, 2, 2, 2))


def test_an_array_that_needs_no_change_is_returned_as_it_is() -> None:
    label = line(0, 1, 1, 2)
    assert postprocess(label, possible_steps(CLASSES)) is label
    assert postprocess(line(0, 0), possible_steps(CLASSES)).sum() == 0
    assert postprocess(label, []) is label


def test_voxels_that_share_a_corner_are_connected() -> None:
    label = np.eye(3, dtype=np.uint8)[None]
    assert postprocess(label, possible_steps(CLASSES)) is label


def test_foreground_comes_first_so_that_a_distant_island_is_removed() -> None:
    # Two voxels of liver are inside the body, three far away.
    label = line(2, 2, 1, 1, 2, 0, 1, 1, 1)
    np.testing.assert_array_equal(postprocess(label, possible_steps(CLASSES)[:2]), line(2, 2, 1, 1, 2, 0, 0, 0, 0))


def test_a_stray_piece_of_an_inner_region_becomes_the_region_around_it() -> None:
    steps = {step.name: step for step in possible_steps(REGIONS)}
    assert {name: step.replaced_by for name, step in steps.items()} == {"whole": 0, "core": 1, "rim": 2}
    found = postprocess(line(1, 2, 1, 2, 3, 1), [steps["core"]])
    np.testing.assert_array_equal(found, line(1, 1, 1, 2, 3, 1))


def test_each_set_of_values_is_tried_once_larger_ones_first() -> None:
    assert [step.name for step in possible_steps(CLASSES)] == ["foreground", "liver", "tumour"]
    assert [step.name for step in possible_steps(REGIONS)] == ["whole", "core", "rim"]
    one = Labels.from_dataset_json({"background": 0, "block": 7})
    assert possible_steps(one) == [KeepLargest(name="block", values=(7,))]


@settings(max_examples=60, deadline=None)
@given(small_labels, st.sampled_from([CLASSES, REGIONS]), st.sets(st.integers(0, 2)))
def test_post_processing_is_idempotent_and_only_removes_voxels(
    label: np.ndarray, labels: Labels, which: set[int]
) -> None:
    label = np.where(label > labels.values[-1], 0, label)
    steps = [step for index, step in enumerate(possible_steps(labels)) if index in which]
    before = label.copy()
    once = postprocess(label, steps)
    np.testing.assert_array_equal(postprocess(once, steps), once)
    np.testing.assert_array_equal(label, before)
    assert not ((once > 0) & (label == 0)).any()
    for step in steps:
        kept = np.isin(once, step.values)
        assert ndimage.label(kept, np.ones((3, 3, 3)))[1] <= 1


def summary_of(folder: Path, labels: Labels, cases: Sequence[tuple[np.ndarray, np.ndarray]], **groups: str) -> Summary:
    """Write (prediction, reference) pairs and evaluate them."""
    results = []
    for number, (found, expected) in enumerate(cases):
        name = f"case_{number:02}"
        geometry = Geometry(found.shape, (1.0, 1.0, 1.0), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 3)
        paths = folder / "found" / f"{name}.nii.gz", folder / "expected" / f"{name}.nii.gz"
        for path, array in zip(paths, (found, expected), strict=True):
            write_label(array, geometry, path)
        results.append(evaluate_case(Pair(*paths, groups.get(name)), labels))
    return summarise(results, labels)


def organs(random: np.random.Generator, islands: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A liver with a tumour in it, and a prediction of it with islands of liver."""
    expected = np.zeros((6, 12, 24), np.uint8)
    expected[1:5, 2:10, 2:10] = 1
    expected[2:4, 4:7, 4:7] = 2
    found = expected.copy()
    found[1, 2 : 2 + random.integers(1, 8), 2] = 0
    for z in range(islands):
        found[z, 3, 20] = 1
    return found, expected


def test_islands_that_every_case_has_are_removed(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    summary = summary_of(tmp_path, CLASSES, [organs(random, islands=2) for _ in range(6)])
    choice = choose_postprocessing(summary, CLASSES, processes=1)
    assert [step.name for step in choice.steps] == ["foreground"]
    assert choice.summary.foreground_mean["Dice"] > summary.foreground_mean["Dice"]
    assert choice.summary.foreground_mean["HD95"] <= summary.foreground_mean["HD95"]
    assert "largest component of foreground changes 6 of 6 cases and raises mean Dice" in choice.reasons[0]
    assert "largest component is not applied to liver, tumour" in choice.reasons[1]
    assert choice.reasons[2].endswith("so its effect on new cases tends to be smaller.")
    # The reported metrics are those of the post-processed segmentations.
    for case in choice.summary.metric_per_case:
        assert case.metrics["1"]["FP"] == 0


def test_the_metrics_after_a_step_for_a_single_label_are_reported(tmp_path: Path) -> None:
    """The stray tumour touches the liver, so that all foreground together is one component."""
    random = np.random.default_rng(0)
    cases = [organs(random) for _ in range(6)]
    for found, _ in cases:
        found[2, 8, 8] = 2
    summary = summary_of(tmp_path, CLASSES, cases)
    choice = choose_postprocessing(summary, CLASSES, processes=1)
    assert [step.name for step in choice.steps] == ["tumour"]
    assert summary.mean["2"]["Dice"] < choice.summary.mean["2"]["Dice"] == 1


def test_islands_where_nothing_was_annotated_do_not_count(tmp_path: Path) -> None:
    """The islands of the prediction are in slices without annotation, or of a label that was not annotated."""
    random = np.random.default_rng(0)
    cases = [organs(random) for _ in range(6)]
    for found, _ in cases:
        found[0, 3, 20], found[2, 3, 20] = 1, 2
    sparse = CLASSES.model_copy(update={"unannotated_slices": "empty"})
    whole = summary_of(tmp_path / "whole", sparse, cases)
    choice = choose_postprocessing(whole, sparse, processes=1)
    assert [step.name for step in choice.steps] == ["foreground"], "the island of tumour is an error"

    results = [
        evaluate_case(Pair(Path(case.prediction_file), Path(case.reference_file), None, ("liver",)), sparse)
        for case in whole.metric_per_case
    ]
    choice = choose_postprocessing(summarise(results, sparse), sparse, processes=1)
    assert choice.steps == ()
    assert np.isnan(choice.summary.mean["2"]["Dice"])


def test_two_kidneys_are_both_kept(tmp_path: Path) -> None:
    expected = np.zeros((4, 10, 20), np.uint8)
    expected[1:3, 2:6, 2:6] = expected[1:3, 2:6, 12:16] = 1
    summary = summary_of(tmp_path, CLASSES, [(expected, expected)] * 4)
    choice = choose_postprocessing(summary, CLASSES, processes=1)
    assert choice.steps == ()
    assert choice.summary == summary


def test_a_step_that_helps_some_cases_and_harms_others_is_not_kept(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    helped = [organs(random, islands=3) for _ in range(4)]
    harmed = [(found, np.where(found == 0, expected, found)) for found, expected in (organs(random, 2) for _ in "abc")]
    choice = choose_postprocessing(summary_of(tmp_path, CLASSES, helped + harmed), CLASSES, processes=1)
    assert choice.steps == ()


@pytest.mark.parametrize(("islands", "kept"), [(1, []), (2, ["foreground"])])
def test_a_gain_too_small_to_be_reported_is_not_worth_a_step(tmp_path: Path, islands: int, kept: list[str]) -> None:
    """An island of a voxel in every case lowers the Dice of the liver, of 700 voxels, by 0.0007."""
    expected = np.zeros((8, 12, 24), np.uint8)
    expected[:7, 1:11, 1:11] = 1
    found = expected.copy()
    found[:islands, 3, 20] = 1
    choice = choose_postprocessing(summary_of(tmp_path, CLASSES, [(found, expected)] * 5), CLASSES, processes=1)
    assert [step.name for step in choice.steps] == kept


def test_nothing_is_kept_on_the_evidence_of_one_patient(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    cases = [organs(random, islands=2) for _ in range(2)]
    summary = summary_of(tmp_path, CLASSES, cases, case_00="anna", case_01="anna")
    assert choose_postprocessing(summary, CLASSES, processes=1).steps == ()


def test_steps_of_nested_regions_are_combined(tmp_path: Path) -> None:
    expected = np.zeros((4, 10, 20), np.uint8)
    expected[:, 2:8, 2:10] = 1
    expected[1:3, 3:6, 3:6] = 2
    found = expected.copy()
    found[1, 3, 8] = 2  # a stray piece of core inside the whole: it becomes whole
    found[1, 3, 15] = 3  # an island
    choice = choose_postprocessing(summary_of(tmp_path, REGIONS, [(found, expected)] * 3), REGIONS, processes=1)
    assert [step.name for step in choice.steps][:2] == ["whole", "core"]
    for case in choice.summary.metric_per_case:
        assert case.metrics["(1, 2, 3)"]["Dice"] == 1
        assert case.metrics["(2, 3)"]["Dice"] == 1
    np.testing.assert_array_equal(postprocess(found, choice.steps), expected)


def test_ignored_voxels_do_not_count(tmp_path: Path) -> None:
    labels = Labels.from_dataset_json({"background": 0, "liver": 1, "ignore": 2})
    found, expected = np.zeros((2, 3, 8), np.uint8), np.zeros((2, 3, 8), np.uint8)
    found[:, :, :3] = expected[:, :, :3] = 1
    found[:, :, 6] = 1
    expected[:, :, 5:] = 2  # not annotated
    choice = choose_postprocessing(summary_of(tmp_path, labels, [(found, expected)] * 3), labels, processes=1)
    assert choice.steps == ()


@pytest.mark.parametrize("shape", [(1, 6, 7), (3, 1, 4)])
def test_flat_images_work(shape: tuple[int, int, int]) -> None:
    label = np.zeros(shape, np.uint16)
    label[0, 0, 0], label[-1, -1, -2:] = 300, 300
    found = postprocess(label, [KeepLargest(name="block", values=(300,))])
    assert found[0, 0, 0] == 0
    assert (found[-1, -1, -2:] == 300).all()
