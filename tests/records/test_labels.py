from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocrossdim.records.labels import IGNORE_INDEX, Labels
from autocrossdim.system.errors import UserError


def test_classes_are_numbered_by_value():
    labels = Labels.from_dataset_json({"background": 0, "tumour": 2, "liver": 1})
    assert labels.names == ("liver", "tumour")
    assert labels.foreground == {"liver": (1,), "tumour": (2,)}
    assert (labels.num_outputs, labels.has_regions, labels.ignore) == (3, False, None)
    assert labels.values == (0, 1, 2)


def test_background_need_not_be_declared():
    assert Labels.from_dataset_json({"x": 1}) == Labels.from_dataset_json({"background": 0, "x": 1})


def test_the_older_form_is_the_same():
    older = Labels.from_dataset_json({"0": "background", "1": "x", "2": "y"})
    assert older == Labels.from_dataset_json({"background": 0, "x": 1, "y": 2})


def test_lists_of_one_value_are_classes():
    labels = Labels.from_dataset_json({"background": 0, "x": [1], "y": [2]})
    assert not labels.has_regions
    assert labels.num_outputs == 3


def test_values_0_and_255_and_gaps_stay_in_files_and_are_numbered_for_the_network():
    labels = Labels.from_dataset_json({"background": 0, "x": 255, "y": 7})
    seg = np.array([[0, 255], [7, 0]], np.uint8)
    np.testing.assert_array_equal(labels.to_index(seg), [[0, 2], [1, 0]])
    np.testing.assert_array_equal(labels.from_index(labels.to_index(seg)), seg)
    assert labels.from_index(labels.to_index(seg)).dtype == np.uint8


def test_voxels_to_ignore_have_an_index_of_their_own():
    labels = Labels.from_dataset_json({"background": 0, "x": 1, "ignore": 2})
    seg = np.array([0, 1, 2])
    np.testing.assert_array_equal(labels.to_index(seg), [0, 1, IGNORE_INDEX])
    np.testing.assert_array_equal(labels.ignored(seg), [False, False, True])
    np.testing.assert_array_equal(labels.to_regions(seg), [[0, 1, 0]])
    assert labels.num_outputs == 2
    assert labels.values == (0, 1, 2)
    assert not Labels.from_dataset_json({"x": 1}).ignored(np.array([0, 1])).any()


BRAIN = {"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def test_regions_overlap_and_are_painted_in_their_order():
    labels = Labels.from_dataset_json(BRAIN, [1, 2, 3])
    assert labels.has_regions
    assert labels.num_outputs == 3
    assert labels.foreground == {"whole": (1, 2, 3), "core": (2, 3), "enhancing": (3,)}
    seg = np.array([0, 1, 2, 3])
    regions = labels.to_regions(seg)
    np.testing.assert_array_equal(regions, [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]])
    assert regions.dtype == np.uint8
    np.testing.assert_array_equal(labels.from_regions(regions.astype(bool)), seg)


def test_an_undeclared_value_is_an_error():
    labels = Labels.from_dataset_json({"x": 1, "y": 5})
    for value in (2, 6, 1000, -1):
        with pytest.raises(UserError, match=rf"\[{value}\] are not declared"):
            labels.to_index(np.array([0, 1, value]))


@pytest.mark.parametrize(
    ("labels", "order", "message"),
    [
        ({}, None, "must be"),
        ({"background": 0}, None, "nothing but background"),
        ({"background": 1, "x": 2}, None, "'background' must be 0"),
        ({"x": 1, "y": 1}, None, "same value"),
        ({"x": "one", "y": 2}, None, "whole number"),
        ({"x": 1.5}, None, "whole number"),
        ({"x": -1}, None, "whole number"),
        ({"x": True}, None, "whole number"),
        ({"x": []}, None, "whole number"),
        ({"x": 3, "ignore": 2}, None, "must be the highest"),
        ({"x": 3, "ignore": [4, 5]}, None, "'ignore' must be one value"),
        ({"whole": [0, 1], "core": 1}, [1, 1], "contains 0"),
        (BRAIN, None, "missing, but labels declares regions"),
        (BRAIN, [1, 2], "2 entries for 3 regions"),
        (BRAIN, [1, 2, 4], "names 4, which is not a label value"),
        ({"a": [1, 2], "b": [2, 1]}, [1, 2], "same value"),
    ],
)
def test_nonsense_is_an_error_that_says_so(labels: dict[str, Any], order: list[int] | None, message: str):
    with pytest.raises(UserError, match=message):
        Labels.from_dataset_json(labels, order)


@given(
    values=st.lists(st.integers(1, 2000), min_size=1, max_size=8, unique=True),
    ignore=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_classes_survive_encoding_and_json(values: list[int], ignore: bool, seed: int):
    declared = {f"name {value}": value for value in values}
    labels = Labels.from_dataset_json(declared | ({"ignore": max(values) + 3} if ignore else {}))
    assert Labels.model_validate_json(labels.model_dump_json()) == labels
    seg = np.random.default_rng(seed).choice([0, *values], (3, 4, 5))
    index = labels.to_index(seg)
    assert index.min() >= 0
    assert index.max() < labels.num_outputs
    np.testing.assert_array_equal(labels.from_index(index), seg)


@given(number=st.integers(2, 6), seed=st.integers(0, 2**32 - 1))
def test_nested_regions_survive_encoding_and_json(number: int, seed: int):
    declared = {f"region {k}": list(range(k, number + 1)) for k in range(1, number + 1)}
    labels = Labels.from_dataset_json(declared, list(range(1, number + 1)))
    assert Labels.model_validate_json(labels.model_dump_json()) == labels
    seg = np.random.default_rng(seed).integers(0, number + 1, (3, 4, 5))
    np.testing.assert_array_equal(labels.from_regions(labels.to_regions(seg).astype(bool)), seg)


def test_slices_that_were_not_annotated_have_a_value_that_no_file_holds():
    labels = Labels(foreground={"x": (1,), "y": (7,)}, unannotated_slices="empty")
    assert labels.values == (0, 1, 7)
    assert labels.unannotated == 8
    np.testing.assert_array_equal(labels.to_index(np.array([0, 1, 7, 8])), [0, 1, 2, IGNORE_INDEX])
    np.testing.assert_array_equal(labels.ignored(np.array([0, 7, 8])), [False, False, True])
    assert labels.only(["x"]).unannotated == 8, "arrays keep their values"
    declared = Labels(foreground={"x": (1,)}, ignore=4, unannotated_slices="empty")
    assert declared.unannotated == 4
    assert Labels(foreground={"x": (1,)}).unannotated is None


def test_labels_without_unannotated_slices_are_written_as_before():
    plain = Labels.from_dataset_json({"background": 0, "x": 1})
    assert plain.model_dump() == {"foreground": {"x": (1,)}, "ignore": None, "regions_class_order": None}
    sparse = Labels(foreground={"x": (1,)}, unannotated_slices="empty")
    assert Labels.model_validate_json(sparse.model_dump_json()) == sparse
    assert Labels.model_validate_json(plain.model_dump_json()) == plain


def test_some_labels_or_regions_can_be_selected():
    regions = Labels.from_dataset_json({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
    core = regions.only(["core"])
    assert core.foreground == {"core": (2,)}
    assert core.regions_class_order == (2,)
