"""The keys `channel_names`, `groups` and `dataset` of dataset.json, and names that look like a key."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Any

# An empty name, a hidden file or a parent directory, and characters that no file name should have.
_UNFIT = re.compile(r"^$|^\.|[/\\\x00-\x1f\x7f\ud800-\udfff]")

KEYS = (
    "channel_names",
    "modality",
    "labels",
    "regions_class_order",
    "numTraining",
    "file_ending",
    "dataset",
    "groups",
    "unannotated_slices",
    "annotated_labels",
    "sides",
    "mirror_axes",
    "codes",
)
"""Every key of dataset.json that has a meaning here; others are ignored."""


def parse_channel_names(file: Path, content: Any) -> tuple[tuple[str, ...], list[str]]:
    """Read the names of the channels, in order.

    Args:
        file: dataset.json, for the messages.
        content: Value of the key `channel_names`, or of the older `modality`.

    Returns:
        The names, and every fault, one sentence each.
    """
    names = content
    if isinstance(content, dict) and set(content) == {str(i) for i in range(len(content))}:
        names = [content[str(i)] for i in range(len(content))]
    if not isinstance(names, list) or not names:
        what = "is missing" if content is None else "is malformed"
        return (), [f'{file}: channel_names {what}. Write it as {{"0": "T1", "1": "T2"}}, counting from 0.']
    wrong = [name for name in names if not _is_name(name) or not str(name).strip()]
    return tuple(map(str, names)), [f"{file}: channel_names contains {name!r}. Use a name." for name in wrong]


def parse_groups(file: Path, content: Any) -> tuple[dict[str, str], list[str]]:
    """Read the group of each case, such as the patient.

    Args:
        file: dataset.json, for the messages.
        content: Value of the key `groups`.

    Returns:
        Case -> group, and every fault, one sentence each.
    """
    if not isinstance(content, dict):
        return {}, [f'{file}: groups is malformed. Write it as {{"case": "patient", ...}}.']
    wrong = [case for case, group in content.items() if not _is_name(group)]
    return {case: str(group) for case, group in content.items()}, [
        f"{file}: groups has {content[case]!r} for case '{case}'. Write the name of one group, such as the patient."
        for case in wrong
    ]


def case_list_faults(file: Path, content: Any) -> list[str]:
    """Return every fault of the list of cases and their files, one sentence each.

    Args:
        file: dataset.json, for the messages.
        content: Value of the key `dataset`.
    """
    form = '{"images": ["..."], "label": "..."}'
    if not isinstance(content, dict):
        return [f'{file}: dataset is malformed. Write it as {{"case": {form}, ...}}.']
    faults = []
    for name, files in content.items():
        # A case's name becomes a file name in the work directory and must not lead out of it.
        if _UNFIT.search(name) is not None:
            faults.append(
                f"{file}: dataset names a case {name!r}. Rename it: without /, \\ and control characters and "
                "without a dot at the beginning, because results are stored under this name."
            )
        images = files.get("images") if isinstance(files, dict) else None
        paths = [*images, files.get("label")] if isinstance(images, list) and images else [None]
        if not all(isinstance(path, str) and path for path in paths):
            faults.append(f"{file}: dataset is malformed for case {name!r}. Write its files as {form}.")
    return faults


def misspelt_keys(file: Path, content: Collection[str]) -> list[str]:
    """Return a sentence for every key that is ignored, but looks like one that has a meaning.

    Args:
        file: dataset.json, for the messages.
        content: All keys in it.
    """
    plain = {_plain(key): key for key in KEYS}
    found = {key: get_close_matches(_plain(key), plain, 1, 0.85) for key in content if key not in KEYS}
    return [
        f"{file}: the key '{key}' is ignored. Did you mean '{plain[match[0]]}'?"
        for key, match in found.items()
        if match and plain[match[0]] not in content
    ]


def _is_name(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _plain(key: str) -> str:
    return key.lower().replace("_", "")
