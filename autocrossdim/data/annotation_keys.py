"""The keys `unannotated_slices` and `annotated_labels` of dataset.json: what was not annotated."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from autocrossdim.system.text import listed


def parse_unannotated_slices(file: Path, content: Any) -> tuple[Literal["empty"] | None, list[str]]:
    """Read which slices were not annotated; None if the key is missing, so that all were.

    Args:
        file: dataset.json, for the messages.
        content: Value of the key `unannotated_slices`.

    Returns:
        The value, and every fault, one sentence each.
    """
    if content is None:
        return None, []
    if content == "empty":
        return "empty", []
    return None, [
        f'{file}: unannotated_slices is {content!r}. Write "empty" if slices without any label were not annotated, or '
        "remove the key."
    ]


def parse_annotated_labels(
    file: Path, content: Any, names: Sequence[str]
) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Read which labels were annotated in the cases that were not annotated completely.

    Whether the cases exist is checked together with the files.

    Args:
        file: dataset.json, for the messages.
        content: Value of the key `annotated_labels`.
        names: Names of all labels.

    Returns:
        Case -> names of its annotated labels, in the order of `names`, without the cases that list all of them; and
        every fault, one sentence each.
    """
    if not isinstance(content, dict) or not all(
        isinstance(listing, list) and all(isinstance(name, str) for name in listing) for listing in content.values()
    ):
        return {}, [f'{file}: annotated_labels is malformed. Write it as {{"case": ["label", ...], ...}}.']
    faults = []
    for case, listing in content.items():
        if unknown := sorted(set(listing) - set(names)):
            faults.append(
                f"{file}: annotated_labels of case '{case}' names {listed(unknown)}. Use names of labels: "
                f"{listed(names, 10)}."
            )
        elif not listing:
            faults.append(
                f"{file}: annotated_labels of case '{case}' is empty. List the labels that were annotated in it, or "
                "remove the case from the dataset."
            )
    annotated = {case: tuple(name for name in names if name in listing) for case, listing in content.items()}
    return {case: listing for case, listing in annotated.items() if listing != tuple(names)}, faults
