import pytest

from autocrossdim.evaluation.summary import summarise
from autocrossdim.records.labels import Labels
from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.report.misses import hardly_segmented, partial_sentences, skipped_sentence, unmatched_sentences

LESION = Labels(foreground={"lesion": (1,)})


def summary_of(*cases: tuple[int, int, float], skipped: tuple[str, ...] = ()) -> Summary:
    """A summary of cases given as (voxels predicted, voxels in the reference, HD95)."""
    results = [
        CaseResult(
            reference_file=f"{index}",
            prediction_file=f"{index}",
            metrics={"1": {"Dice": 0.5, "n_pred": predicted, "n_ref": expected, "HD95": hd95}},
        )
        for index, (predicted, expected, hd95) in enumerate(cases)
    ]
    return summarise(results, LESION, skipped=skipped)


@pytest.mark.parametrize(
    ("cases", "sentences"),
    [
        ([(5, 5, 1.0), (0, 0, float("nan"))], []),
        (
            [(5, 5, 4.0)] * 6 + [(0, 5, 24.0)] * 2,
            [
                "HD95 9.0 mm; 2 of 8 cases have no prediction for 'lesion' and count as the image diagonal. "
                "HD95 4.0 mm over the 6 cases where both have 'lesion'."
            ],
        ),
        (
            [(5, 5, 4.0), (5, 0, 20.0)],
            [
                "HD95 12.0 mm; 1 of 1 case without 'lesion' has a false alarm and counts as the image diagonal. "
                "HD95 4.0 mm over the 1 case where both have 'lesion'."
            ],
        ),
        (
            [(0, 5, 20.0), (5, 0, 20.0)],
            [
                "HD95 20.0 mm; 1 of 1 case has no prediction for 'lesion', 1 of 1 case without 'lesion' has a "
                "false alarm; these count as the image diagonal."
            ],
        ),
    ],
)
def test_misses_and_false_alarms_are_given_with_their_effect_on_hd95(
    cases: list[tuple[int, int, float]], sentences: list[str]
) -> None:
    assert unmatched_sentences(summary_of(*cases)) == sentences


def test_a_summary_without_distances_still_gives_the_misses() -> None:
    case = CaseResult(reference_file="a", prediction_file="a", metrics={"1": {"Dice": 0, "n_pred": 0, "n_ref": 3}})
    assert unmatched_sentences(summarise([case], LESION)) == ["1 of 1 case has no prediction for 'lesion'."]


def test_skipped_cases_are_counted() -> None:
    assert skipped_sentence(summary_of((5, 5, 1.0))) == []
    assert skipped_sentence(summary_of((5, 5, 1.0), skipped=("a", "b"))) == [
        "2 cases have no prediction and were skipped: a, b."
    ]


def test_cases_in_which_a_label_was_not_annotated_are_neither_right_nor_wrong() -> None:
    nan = float("nan")
    unknown = CaseResult(
        reference_file="x", prediction_file="x", metrics={"1": dict.fromkeys(("Dice", "n_pred", "n_ref", "HD95"), nan)}
    )
    known = summary_of((5, 5, 4.0), (5, 0, 20.0), (0, 0, nan))
    summary = summarise([*known.metric_per_case, unknown], LESION)
    assert unmatched_sentences(summary) == unmatched_sentences(known)
    assert partial_sentences(known) == []
    assert partial_sentences(summary) == [
        "'lesion' was annotated in 3 of 4 cases; the others do not count in its results."
    ]


def test_a_label_with_a_dice_near_0_is_hardly_segmented() -> None:
    summary = summary_of((5, 5, 1.0))
    assert hardly_segmented(summary) == {}
    summary.mean["1"]["Dice"] = 0.02
    assert hardly_segmented(summary) == {"lesion": 0.02}


def test_many_labels_have_one_sentence_together() -> None:
    names = [f"rib {number}" for number in range(1, 8)]
    labels = Labels(foreground={name: (value,) for value, name in enumerate(names, start=1)})
    nan = float("nan")
    found = {"Dice": 0.5, "n_pred": 5, "n_ref": 5, "HD95": 4.0}
    cases = [
        CaseResult(reference_file=file, prediction_file=file, metrics={str(value): metrics for value in range(1, 8)})
        for file, metrics in (
            ("a", {"Dice": 0.0, "n_pred": 0, "n_ref": 5, "HD95": 20.0}),
            ("b", {"Dice": 0.0, "n_pred": 5, "n_ref": 0, "HD95": 20.0}),
            ("c", dict.fromkeys(("Dice", "n_pred", "n_ref", "HD95"), nan)),
        )
    ]
    cases[0].metrics["1"] = found
    summary = summarise(cases, labels)
    assert unmatched_sentences(summary) == [
        "7 labels are missed or falsely predicted in some cases; each counts as the image diagonal in HD95 and ASSD: "
        + ", ".join(f"'rib {number}' (1 missed, 1 false alarm)" for number in range(2, 7))
        + " and 2 more."
    ]
    assert partial_sentences(summary) == [
        "7 labels were annotated in some of the 3 cases only; a case does not count for a label that was not annotated "
        "in it: "
        "'rib 1' (2), 'rib 2' (2), 'rib 3' (2), 'rib 4' (2), 'rib 5' (2) and 2 more."
    ]
