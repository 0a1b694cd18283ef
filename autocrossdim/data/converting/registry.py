"""The layouts that can be converted: each is one decorated function in `layouts/`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from autocrossdim.data.converting.description import Description
from autocrossdim.system.errors import UserError


@dataclass(frozen=True)
class Wishes:
    """What the user says about a source; a layout refuses what it does not use.

    Attributes:
        modality: Part of the source to convert.
        channels: Names of the channels.
        labels: Name -> value in the source.
        processes: Worker processes.
    """

    modality: str | None = None
    channels: tuple[str, ...] = ()
    labels: dict[str, int] | None = None
    processes: int = 1


@dataclass(frozen=True)
class Layout:
    """A layout.

    Attributes:
        name: Name on the command line.
        detects: Whether a source seems to have it; looks at names only.
        describe: Describes a source that has it.
        takes: Fields of `Wishes` that it uses.
        modalities: Modalities that a source holds, one of which has to be chosen if there are several.
    """

    name: str
    detects: Callable[[Path], bool]
    describe: Callable[[Path, Wishes], Description]
    takes: frozenset[str]
    modalities: Callable[[Path], Sequence[str]]


LAYOUTS: dict[str, Layout] = {}
"""Layouts by name."""

Describe = Callable[[Path, Wishes], Description]


def layout(
    name: str,
    detects: Callable[[Path], bool],
    *,
    takes: tuple[str, ...] = (),
    modalities: Callable[[Path], Sequence[str]] = lambda _: (),
) -> Callable[[Describe], Describe]:
    """Register the decorated function as the description of the layout `name`.

    Args:
        name: Name on the command line.
        detects: Whether a source seems to have the layout.
        takes: Fields of `Wishes` that the function uses.
        modalities: Modalities that a source holds, if one of them has to be chosen.
    """

    def register(describe: Describe) -> Describe:
        LAYOUTS[name] = Layout(name, detects, describe, frozenset(takes), modalities)
        return describe

    return register


def describe(layout: Layout, source: Path, wishes: Wishes) -> Description:
    """Describe a source.

    Raises:
        UserError: The source does not have the layout, or a wish is given that the layout does not use.
    """
    given = {"modality": wishes.modality, "channels": wishes.channels, "labels": wishes.labels}
    for wish, value in given.items():
        if value and wish not in layout.takes:
            users = ", ".join(each.name for each in LAYOUTS.values() if wish in each.takes)
            option = {"channels": "channel", "labels": "label"}.get(wish, wish)
            raise UserError(f"--{option}: not used by the layout {layout.name}, only by {users}. Omit it.")
    return layout.describe(source, wishes)
