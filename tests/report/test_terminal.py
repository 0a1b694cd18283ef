import math
import re

import pytest
from rich.console import Console, RenderableType

from autocrossdim.evaluation.summary import summarise
from autocrossdim.records.best import Best, Contender
from autocrossdim.records.labels import Labels
from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.report.formats import operations
from autocrossdim.report.terminal import best_table, summary_table, summary_text

NAN = math.nan
TWO = Labels(foreground={"liver": (1,), "tumour": (2,)})


def case(name: str, *dices: float, group: str | None = None) -> CaseResult:
    """A case with the given Dice per label; NaN for a label that is nowhere, 0 for a missed one."""
    metrics = {
        str(label): {
            "Dice": dice,
            "NSD": dice,
            "HD95": 90.0 if dice == 0 else 10 * dice,
            "ASSD": 90.0 if dice == 0 else 5 * dice,
            "n_pred": 5 if dice > 0 else 0,
            "n_ref": 0 if math.isnan(dice) else 5,
        }
        for label, dice in enumerate(dices, start=1)
    }
    return CaseResult(reference_file=name, prediction_file=name, group=group, metrics=metrics)


def printed(table: RenderableType, width: int = 120) -> str:
    console = Console(width=width)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def row(text: str, label: str) -> str:
    return next(line for line in text.splitlines() if label in line)


def summary_of(names: Labels, *dices: tuple[float, ...], **options: object) -> Summary:
    return summarise([case(f"{index}", *values) for index, values in enumerate(dices)], names, **options)


def test_the_table_has_a_row_per_label_with_intervals() -> None:
    text = printed(summary_text(summary_of(TWO, (0.5, NAN), (0.7, NAN))))
    assert "Means over 2 cases" in text
    assert "0.600 (0.000–1.000)" in row(text, "liver")
    assert "–" in row(text, "tumour")
    assert "all labels" in text
    assert "missed" not in text


def test_no_interval_is_cut_off_at_80_columns() -> None:
    text = printed(summary_text(summary_of(TWO, (0.5, 0.6), (0.7, 0.8))), width=80)
    assert "…" not in text
    assert len(re.findall(r"\(\d+\.\d+–\d+\.\d+\)", text)) == 3 * 4, "two labels and their mean, four metrics"


def test_on_a_narrow_terminal_tables_become_lists_of_unbroken_numbers() -> None:
    text = printed(summary_text(summary_of(TWO, (0.5, 0.6), (0.7, 0.8))), width=60)
    assert len(re.findall(r"\(\d+\.\d+–\d+\.\d+\)", text)) == 3 * 4
    assert re.search(r"liver *\n *cases with it +2 *\n *Dice +0\.600 \(0\.000–1\.000\)", text)
    assert max(map(len, text.splitlines())) <= 60


def test_the_table_gives_the_number_of_patients() -> None:
    cases = [case("a", 0.5, group="anna"), case("b", 0.7, group="anna"), case("c", 0.7)]
    assert summary_table(summarise(cases, TWO)).title == "Means over 3 cases of 2 groups, with 95 % intervals"


def test_missed_labels_are_shown_with_distances_of_the_cases_where_they_are_found() -> None:
    summary = summary_of(TWO, (0.5, 0.2), (0.7, 0), (0.6, 0), (0.6, 0.4))
    text = printed(summary_text(summary), width=80)
    table = text[text.index("Distances over cases where both have the label") :]
    assert re.search(r"liver +0 +0 +6\.00", table)
    assert re.search(r"tumour +2 +0 +3\.00", table)
    assert (
        "HD95 46.5 mm; 2 of 4 cases have no prediction for 'tumour' and count as the image diagonal. "
        "HD95 3.0 mm over the 2 cases where both have 'tumour'."
    ) in " ".join(text.split())


def test_every_table_says_that_only_annotated_slices_count() -> None:
    cases = [case(name, 0.5, 0).model_copy(update={"annotated_slices": (3, 600)}) for name in "ab"]
    summary = summarise(cases, TWO)
    text = " ".join(printed(summary_text(summary), width=80).split())
    assert "Means over 2 cases, with 95 % intervals, annotated slices only (6 of 1,200)" in text
    assert "both have the label, annotated slices only (6 of 1,200)" in text
    assert "annotated slices only" not in printed(summary_text(summary_of(TWO, (0.5, 0.6))))


def test_cases_in_which_a_label_was_not_annotated_are_counted() -> None:
    partial = case("c", 0.5, NAN)
    unknown = dict.fromkeys(partial.metrics["2"], NAN)
    partial = partial.model_copy(update={"metrics": {**partial.metrics, "2": unknown}})
    text = printed(summary_text(summarise([case("a", 0.5, 0.6), case("b", 0.7, NAN), partial], TWO)))
    assert re.search(r"liver +3 +3 +0\.567", text)
    assert re.search(r"tumour +2 +1 +0\.600", text)
    assert "'tumour' was annotated in 2 of 3 cases" in text


def test_skipped_cases_are_listed() -> None:
    text = printed(summary_text(summary_of(TWO, (0.5, 0.6), skipped=["b.nii.gz"])))
    assert "1 case has no prediction and was skipped: b.nii.gz." in text


@pytest.mark.parametrize("name", ["[/b]", "[bold red]x", "[link=file:///etc/passwd]a", ":smile:"])
def test_names_are_not_markup(name: str) -> None:
    labels = Labels(foreground={name: (1,)})
    assert name in printed(summary_text(summary_of(labels, (0.5,), (0,))))
    contender = Contender(name=name, configurations=("dx",), multiply_adds=10**9, dice=0.7)
    best = Best(
        dataset=f"Dataset001_{name}",
        configurations=("dx",),
        folds=(0,),
        dice_postprocessed=0.7,
        contenders=(contender,),
        reasons=(),
        plan_digest="",
        checkpoints={},
    )
    text = printed(best_table(best))
    assert f"Dataset001_{name}" in text
    assert name in row(text, "chosen")


def test_control_sequences_in_names_do_not_reach_the_terminal() -> None:
    labels = Labels(foreground={"\x1b[2Jgone": (1,)})
    text = printed(summary_text(summary_of(labels, (0.5,), (0,))))
    assert "\x1b" not in text
    assert "?[2Jgone" in text


def test_models_are_compared_with_their_training_budgets() -> None:
    contenders = [
        Contender(
            name=name,
            configurations=(name,),
            multiply_adds=10**9,
            dice=dice,
            dice_interval=(0.6, 0.8),
            hd95=3.0,
            steps_per_fold=5000,
            minutes_per_fold=minutes,
        )
        for name, dice, minutes in (("omnia", 0.7, 12.0), ("dx", 0.75, None))
    ]
    best = Best(
        dataset="Dataset001_Tiny",
        configurations=("dx",),
        folds=(0,),
        dice_postprocessed=0.7,
        contenders=tuple(contenders),
        reasons=(),
        plan_digest="",
        checkpoints={},
    )
    sparse = best.model_copy(update={"scope": "annotated slices only (6 of 60)"})
    assert "Dataset001_Tiny, annotated slices only (6 of 60)" in printed(best_table(sparse))
    text = printed(best_table(best), width=100)
    assert re.search(r"omnia +0\.700 \(0\.600–0\.800\) +3\.00 +1 billion +5,000 +12\.0", text)
    assert text.index("dx") < text.index("omnia")
    assert "5,000 " in row(text, "dx ")
    assert "…" not in printed(best_table(best), width=80)
    narrow = printed(best_table(best), width=50)
    assert re.search(r"dx \(chosen\) *\n *Dice \(95 % interval\) +0\.750\b", narrow)
    assert re.search(r"training minutes per fold +12\.0 *\n", narrow)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (400_000, "0.4 million"),
        (38_400_000, "38 million"),
        (999_000_000, "999 million"),
        (1_240_000_000, "1.2 billion"),
        (1_234_000_000_000, "1,234 billion"),
    ],
)
def test_the_cost_of_a_small_network_is_not_zero(count: int, text: str) -> None:
    assert operations(count) == text
