"""Which validation cases weights were trained on, although a case may have another name now."""

from collections.abc import Mapping

from autocrossdim.records.trained_on import TrainedOn

FILES = {"p1": {"image 1", "all 1"}, "p2": {"image 2", "all 2"}, "c": {"image 3", "all 3"}}


def among(
    trained_on: TrainedOn, validated: list[str], trained: list[str], groups: Mapping[str, str] | None = None
) -> list[str]:
    return trained_on.among(validated, trained, lambda name: FILES.get(name, set()), groups or {})


def test_a_case_is_recognised_by_name_and_after_it_was_renamed() -> None:
    trained_on = TrainedOn(frozenset({"a", "b", "c"}), {"all 1": "a", "image 1": "a", "all 9": "b"})
    assert among(trained_on, ["p1", "p2", "c"], []) == ["c", "p1 (then named a)"]
    assert among(trained_on, ["p2"], ["p1"]) == []


def test_a_relabelled_case_is_recognised_by_its_image() -> None:
    assert among(TrainedOn(contents={"image 1": "a", "all before": "a"}), ["p1"], []) == ["p1 (then named a)"]


def test_a_scan_that_is_in_the_dataset_twice_was_not_renamed() -> None:
    FILES["copy"] = FILES["p1"]
    assert among(TrainedOn(frozenset({"copy"}), {"image 1": "copy", "all 1": "copy"}), ["p1"], ["copy"]) == []
    # The former training case has the files of another one now: names were exchanged.
    assert among(TrainedOn(frozenset({"p2"}), {"image 1": "p2"}), ["p1"], ["p2"]) == ["p1 (then named p2)"]


def test_another_scan_of_a_patient_who_was_trained_on_is_recognised_by_its_group() -> None:
    groups = {"a": "patient", "c": "patient", "p2": "another"}
    trained_on = TrainedOn(frozenset({"a", "b"}))
    assert among(trained_on, ["c", "p2"], ["b"], groups) == ["c (through a, of the same group)"]
    assert among(trained_on, ["c", "p2"], ["b"]) == []
    assert among(TrainedOn(frozenset({"a"})), ["c"], [], {"c": "a"}) == [], "a group may be named as a case"


def test_what_earlier_trainings_have_seen_is_passed_on() -> None:
    trained_on = TrainedOn(frozenset({"a"}), {"image 1": "a"})
    assert TrainedOn.of(trained_on.provenance()) == trained_on
    assert TrainedOn.of({"weights": "random"}) == TrainedOn()
