import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.splits import (
    Split,
    extend_splits,
    is_cross_validation,
    load_or_make_splits,
    make_splits,
    update_splits,
)
from autocrossdim.system.errors import UserError


def test_without_groups_folds_are_nnunets():
    names = [f"case_{number:02d}" for number in range(13)]
    splits, _ = make_splits(list(reversed(names)), {})
    expected = KFold(n_splits=5, shuffle=True, random_state=12345).split(names)
    assert [split.val for split in splits] == [tuple(names[i] for i in val) for _, val in expected]
    # Written down once, so that a change of library cannot move cases between folds unseen.
    assert splits[0].val == ("case_00", "case_07", "case_09")


def test_groups_of_one_case_are_as_no_groups():
    names = list("abcdefgh")
    assert make_splits(names, {name: f"patient {name}" for name in names})[0] == make_splits(names, {})[0]


@settings(deadline=None)
@given(st.lists(st.integers(0, 12), min_size=2, max_size=40), st.data())
def test_every_case_is_validated_once_and_groups_stay_together(patients: list[int], data: st.DataObject):
    names = [f"case{number}" for number in range(len(patients))]
    known = data.draw(st.lists(st.booleans(), min_size=len(names), max_size=len(names)))
    groups = {n: f"p{p}" for n, p, k in zip(names, patients, known, strict=True) if k}
    splits, sentence = make_splits(names, groups)
    number = len({groups.get(name, name) for name in names})
    assert len(splits) == (0 if number < 2 else min(5, number))
    assert sentence
    if splits:
        assert sorted(name for split in splits for name in split.val) == sorted(names)
    for split in splits:
        assert split.train
        assert split.val
        assert sorted(split.train + split.val) == sorted(names)
        assert not {groups.get(n, n) for n in split.train} & {groups.get(n, n) for n in split.val}


def test_fewer_than_five_are_left_out_one_at_a_time():
    splits, sentence = make_splits(["a", "b", "c"], {})
    assert [split.val for split in splits] == [("a",), ("b",), ("c",)]
    assert "Only 3 cases" in sentence
    splits, sentence = make_splits(["a", "b", "c"], {"a": "p", "c": "p"})
    assert sorted(split.val for split in splits) == [("a", "c"), ("b",)]
    assert "Only 2 groups" in sentence


@pytest.mark.parametrize(("names", "groups"), [(["a"], {}), (["a", "b"], {"a": "p", "b": "p"}), ([], {})])
def test_nothing_can_be_held_out_of_one(names: list[str], groups: dict[str, str]):
    splits, sentence = make_splits(names, groups)
    assert splits == []
    assert "only `--fold all`" in sentence


def test_splits_are_made_once_and_kept(make_dataset, tmp_path: Path):
    dataset = load_dataset(make_dataset())
    path = tmp_path / "work/splits.json"
    made, _ = load_or_make_splits(dataset, path)
    assert [set(entry) for entry in json.loads(path.read_text(encoding="utf-8"))] == [{"train", "val"}] * 5
    kept = [{"train": ["a", "b"], "val": ["c"]}]
    assert load_or_make_splits(dataset, path)[0] == made
    path.write_text(json.dumps(kept))
    assert [split.val for split in load_or_make_splits(dataset, path)[0]] == [("c",)]


@pytest.mark.parametrize("name", ["splits_final.json", "splits.json"])
def test_splits_of_the_raw_dataset_are_taken_over(make_dataset, tmp_path: Path, name: str):
    dataset = load_dataset(make_dataset())
    (dataset.path / name).write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
    splits, sentence = load_or_make_splits(dataset, tmp_path / "work/splits.json")
    assert splits[0].train == ("a", "b")
    assert name in sentence
    assert json.loads((tmp_path / "work/splits.json").read_text(encoding="utf-8")) == [
        {"train": ["a", "b"], "val": ["c"]}
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"train": ["a", "z"], "val": ["b"]}], "names z, which is not a training case"),
        ([{"train": ["a", "b"], "val": ["b"]}], "both trains on and validates with b"),
        ([{"train": ["a"], "val": ["c"]}, {"train": ["a"], "val": ["e"]}], "fold 1 has group p"),
        ([{"train": ["a"], "val": []}], "empty 'val'"),
        ([{"train": [], "val": ["a"]}], "empty 'train'"),
        ({"train": ["a"]}, "malformed. Write a list"),
        ([["a"], ["b"]], "malformed. Write a list"),
    ],
)
def test_splits_that_make_no_sense_are_errors_and_not_taken_over(
    make_dataset, tmp_path: Path, content: object, message: str
):
    dataset = load_dataset(make_dataset(groups={"a": "p", "e": "p"}))
    (dataset.path / "splits_final.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=message):
        load_or_make_splits(dataset, tmp_path / "splits.json")
    assert not (tmp_path / "splits.json").exists()


@settings(deadline=None)
@given(st.data())
def test_labels_that_only_some_cases_hold_are_spread_and_groups_stay_together(data: st.DataObject):
    patients = [0, 1, *data.draw(st.lists(st.integers(0, 9), min_size=10, max_size=40))]
    names = [f"case{number:02d}" for number in range(len(patients))]
    groups = {name: f"p{patient}" for name, patient in zip(names, patients, strict=True)}
    presence = {name: data.draw(st.sets(st.integers(0, 4))) for name in names}
    splits, _ = make_splits(names, groups, presence)
    assert sorted(name for split in splits for name in split.val) == names
    for split in splits:
        assert split.val
        assert not {groups[name] for name in split.train} & {groups[name] for name in split.val}


def test_a_rare_label_is_in_every_fold_it_can_be_in():
    names = [f"case_{number:02d}" for number in range(30)]
    presence = {name: {0, 1} | ({2} if number < 5 else set()) for number, name in enumerate(names)}
    splits, sentence = make_splits(names, {}, presence)
    assert [sum(2 in presence[name] for name in split.val) for split in splits] == [1] * 5
    assert {len(split.val) for split in splits} == {6}
    assert "distributed evenly" in sentence


def test_labels_that_every_case_holds_leave_nnunets_folds():
    names = [f"case_{number:02d}" for number in range(13)]
    assert make_splits(names, {}, {name: {0, 1} for name in names}) == make_splits(names, {})


@settings(deadline=None)
@given(st.data())
def test_no_case_moves_when_others_come_and_go_and_groups_stay_together(data: st.DataObject):
    patients = data.draw(st.lists(st.integers(0, 12), min_size=4, max_size=40))
    names = [f"case{number:02d}" for number in range(len(patients))]
    groups = {name: f"p{patient}" for name, patient in zip(names, patients, strict=True) if patient < 10}
    presence = {name: data.draw(st.sets(st.integers(0, 3))) for name in names}
    before = data.draw(st.lists(st.sampled_from(names), min_size=3, unique=True))
    now = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    splits, _ = make_splits(before, groups, {name: presence[name] for name in before})
    if not splits:
        return
    grown = extend_splits(splits, now, groups, {name: presence[name] for name in now})
    assert len(grown) == len(splits)
    for old, new in zip(splits, grown, strict=True):
        assert set(old.val) & set(now) <= set(new.val)
        assert set(old.train) & set(now) <= set(new.train)
        assert not set(old.train) & set(new.val), "a fold would validate what it was trained on"
        assert set(new.train) | set(new.val) == set(now)
        assert not {groups.get(n, n) for n in new.train} & {groups.get(n, n) for n in new.val}
    assert sorted(name for split in grown for name in split.val) == sorted(now)
    assert is_cross_validation(grown)


def test_new_cases_go_where_their_labels_and_cases_are_fewest():
    splits = [Split(("c", "d"), ("a", "b")), Split(("a", "b"), ("c", "d"))]
    presence = {"a": {2}, "b": {1}, "c": {1}, "d": {1}, "e": {1, 2}, "f": {1}, "g": {1}}
    grown = extend_splits(splits, list(presence), {"f": "p", "a": "p"}, presence)
    assert grown[0] == Split(("c", "d", "e"), ("a", "b", "f", "g"))
    assert grown[1] == Split(("a", "b", "f", "g"), ("c", "d", "e"))


def test_a_fold_left_without_cases_gets_the_first_new_one():
    splits, _ = make_splits(["a", "b", "c"], {})
    assert [split.val for split in extend_splits(splits, ["a", "c", "x"], {})] == [("a",), ("x",), ("c",)]


def test_renamed_cases_stay_in_their_folds(make_dataset, tmp_path: Path):
    dataset = load_dataset(make_dataset())
    path = tmp_path / "splits.json"
    path.write_text(json.dumps([{"train": ["x", "y"], "val": ["v", "w"]}, {"train": ["v", "w"], "val": ["x", "y"]}]))
    copies = {"a": "w", "b": "x", "c": "y", "d": "v"}
    splits, sentence = update_splits(dataset, path, list("abcde"), dict.fromkeys("abcde", (1,)), copies=copies)
    assert [set(split.val) - {"e"} for split in splits] == [{"a", "d"}, {"b", "c"}]
    assert sentence.startswith(
        "a, b, c, d are renamed copies of w, x, y, v; they stay in their folds. All other cases stay in their folds. "
        "New cases are validated: e by fold "
    )


def test_own_folds_are_taken_over_if_they_cover_the_new_cases(make_dataset, tmp_path: Path):
    dataset = load_dataset(make_dataset())
    path = tmp_path / "splits.json"
    write = (dataset.path / "splits_final.json").write_text
    write(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
    load_or_make_splits(dataset, path)
    with pytest.raises(UserError, match=r"splits_final\.json: no fold names d, e, which were added"):
        update_splits(dataset, path, ["d", "e"], {})
    write(json.dumps([{"train": ["a", "b", "d"], "val": ["c", "e"]}]))
    splits, sentence = update_splits(dataset, path, ["d", "e"], {})
    assert splits == [Split(("a", "b", "d"), ("c", "e"))]
    assert "splits_final.json. New cases are validated: e by fold 0." in sentence
    assert load_or_make_splits(dataset, path)[0] == splits


def test_folds_that_are_no_cross_validation_are_not_extended(make_dataset, tmp_path: Path):
    dataset = load_dataset(make_dataset())
    path = tmp_path / "splits.json"
    path.write_text(json.dumps([{"train": ["a", "b"], "val": ["c"]}]))
    with pytest.raises(UserError, match=r"not validated exactly once, so it is not known where d, e belong"):
        update_splits(dataset, path, ["d", "e"], {})


def test_folds_of_cases_that_are_gone_name_the_command_to_run(make_dataset, tmp_path: Path):
    dataset = load_dataset(make_dataset())
    path = tmp_path / "splits.json"
    path.write_text(json.dumps([{"train": ["a", "gone"], "val": ["c"]}]))
    with pytest.raises(UserError, match=r"names gone.*run `autocrossdim plan_and_preprocess` again"):
        load_or_make_splits(dataset, path)


def test_folds_that_divide_a_new_group_say_how_to_make_others(make_dataset, tmp_path: Path):
    path = tmp_path / "splits.json"
    load_or_make_splits(load_dataset(make_dataset()), path)
    grouped = load_dataset(make_dataset(groups={"a": "p", "b": "p"}))
    with pytest.raises(UserError, match=r"has group p in both train and val\. If .* new folds with .* --overwrite`"):
        load_or_make_splits(grouped, path)
