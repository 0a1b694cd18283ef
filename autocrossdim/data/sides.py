"""The keys `sides` and `mirror_axes` of dataset.json: what a user knows about left and right, and about mirroring."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from autocrossdim.data.orientation import AXIS_NAMES
from autocrossdim.system.text import listed

MIRROR_AXES = (*AXIS_NAMES, "x", "y", "z")
"""Names of axes: anatomical ones, and those of the array for images of unknown orientation and 2D images."""


def parse_sides(file: Path, content: Any, names: Collection[str]) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """Read pairs of labels that are the left and the right version of one structure.

    Args:
        file: dataset.json, for the messages.
        content: Value of the key `sides`.
        names: Names of the labels.

    Returns:
        The pairs, and every fault, one sentence each.
    """
    is_pairs = isinstance(content, list) and all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(name, str) for name in pair) for pair in content
    )
    if not is_pairs:
        return (), [f'{file}: sides is malformed. Write it as [["left kidney", "right kidney"], ...].']
    named = [name for pair in content for name in pair]
    faults = []
    if unknown := sorted(set(named) - set(names)):
        faults.append(f"{file}: sides names {listed(unknown)}, which labels does not declare. Use names of labels.")
    if repeated := sorted({name for name in named if named.count(name) > 1}):
        faults.append(f"{file}: sides names {listed(repeated)} more than once. Name each label in one pair at most.")
    return tuple((left, right) for left, right in content), faults


def parse_mirror_axes(file: Path, content: Any) -> tuple[tuple[str, ...] | None, list[str]]:
    """Read the names of the axes to mirror; None if the key is missing, so that the planner chooses.

    Args:
        file: dataset.json, for the messages.
        content: Value of the key `mirror_axes`.

    Returns:
        The names, and every fault, one sentence each.
    """
    if content is None:
        return None, []
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        return None, [f'{file}: mirror_axes is malformed. Write it as ["front-back", "top-bottom"]; [] mirrors none.']
    if unknown := sorted(set(content) - set(MIRROR_AXES)):
        return None, [
            f"{file}: mirror_axes names {listed(unknown)}, which is not an axis. Use some of {', '.join(MIRROR_AXES)}."
        ]
    return tuple(content), []


def missing_axes(names: Iterable[str], *, dims: int, oriented: bool) -> list[str]:
    """Return the axes to mirror that images do not have.

    Args:
        names: Names of axes, of `MIRROR_AXES`.
        dims: 2 or 3; 2D images have no axis z.
        oriented: Whether the images have a known orientation in common; if not, they have no anatomical axes.
    """
    existing = {*("xyz" if dims == 3 else "xy"), *(AXIS_NAMES if oriented else ())}
    return sorted(set(names) - existing)


def missing_axes_fault(missing: Collection[str], *, dims: int) -> str:
    """Return the sentence on axes to mirror that images do not have, without the name of the file."""
    unknown = "because the orientation of the images is unknown, or differs and is not used (--keep-orientation)"
    known = "x and y" if dims == 2 else f"x, y and z, {unknown}"
    return f"mirror_axes names {listed(missing)}, an axis that the images do not have. Use {known}."
