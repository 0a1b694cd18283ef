"""Sentences about missed labels and false alarms, which count as the image diagonal in HD95 and ASSD."""

import math

from autocrossdim.records.summary import Summary
from autocrossdim.system.text import counted, listed

HARDLY = 0.1  # Dice below which a label is hardly segmented; our choice
SEVERAL = 5  # labels that have a sentence each; of more, one sentence names the first ones. Our choice


def unmatched_sentences(summary: Summary) -> list[str]:
    """Return what is missed or falsely predicted in any case: a sentence or two per label, or one for many labels."""
    keys = [key for key in summary.mean if summary.n_missed[key] or summary.n_false_alarms[key]]
    if len(keys) <= SEVERAL:
        return [_sentence(summary, key) for key in keys]
    keys.sort(key=lambda key: summary.n_missed[key] + summary.n_false_alarms[key], reverse=True)
    diagonal = "; each counts as the image diagonal in HD95 and ASSD" if "HD95" in summary.mean[keys[0]] else ""
    labels = [
        f"'{summary.name(key)}' ({summary.n_missed[key]} missed, {counted(summary.n_false_alarms[key], 'false alarm')})"
        for key in keys
    ]
    return [f"{len(keys)} labels are missed or falsely predicted in some cases{diagonal}: {listed(labels)}."]


def hardly_segmented(summary: Summary) -> dict[str, float]:
    """Return the mean Dice of the labels that are hardly segmented at all, by name."""
    return {summary.name(key): means["Dice"] for key, means in summary.mean.items() if means["Dice"] < HARDLY}


def partial_sentences(summary: Summary) -> list[str]:
    """Return a sentence about each label that was not annotated in some case, or one for many labels."""
    partial = {summary.name(key): number for key, number in summary.n_annotated.items() if number < summary.n_cases}
    cases = counted(summary.n_cases, "case")
    if len(partial) > SEVERAL:
        labels = listed([f"'{name}' ({number})" for name, number in partial.items()])
        return [
            f"{len(partial)} labels were annotated in some of the {cases} only; a case does not count for a label that "
            f"was not annotated in it: {labels}."
        ]
    return [
        f"'{name}' was annotated in {number} of {cases}; the others do not count in its results."
        for name, number in partial.items()
    ]


def skipped_sentence(summary: Summary) -> list[str]:
    """Return a sentence about the cases without a prediction, if any were skipped."""
    if not summary.skipped:
        return []
    count = len(summary.skipped)
    return [f"{_have(count, 'case')} no prediction and {_were(count)} skipped: {listed(summary.skipped)}."]


def _sentence(summary: Summary, key: str) -> str:
    name, cases = summary.name(key), summary.metric_per_case
    missed, false_alarms = summary.n_missed[key], summary.n_false_alarms[key]
    with_it = sum(case.in_reference(key) for case in cases)
    unmatched = []
    if missed:
        unmatched.append(f"{missed} of {_have(with_it, 'case', missed)} no prediction for '{name}'")
    if false_alarms:
        without = counted(summary.n_annotated[key] - with_it, "case")
        unmatched.append(f"{false_alarms} of {without} without '{name}' {_verb(false_alarms)} a false alarm")
    text = ", ".join(unmatched)
    if "HD95" not in summary.mean[key]:
        return f"{text}."
    count = " and counts" if missed + false_alarms == 1 else " and count" if len(unmatched) == 1 else "; these count"
    text = f"HD95 {summary.mean[key]['HD95']:.1f} {summary.unit}; {text}{count} as the image diagonal."
    found = summary.mean[key].get("HD95_found", math.nan)
    if math.isnan(found):
        return text
    both = counted(summary.n_present[key] - missed - false_alarms, "case")
    return f"{text} HD95 {found:.1f} {summary.unit} over the {both} where both have '{name}'."


def _verb(count: int) -> str:
    return "has" if count == 1 else "have"


def _have(count: int, noun: str, subject: int | None = None) -> str:
    return f"{counted(count, noun)} {_verb(count if subject is None else subject)}"


def _were(count: int) -> str:
    return "was" if count == 1 else "were"
