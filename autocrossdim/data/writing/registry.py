"""The formats in which segmentations are written: each is one decorated function in `formats/`.

The help of the command line is derived from them, so nothing here imports more than it needs.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from autocrossdim.records.codes import LabelCode
from autocrossdim.records.labels import Labels

if TYPE_CHECKING:
    import numpy as np

    from autocrossdim.data.dataset import Case
    from autocrossdim.data.geometry import Geometry


@dataclass(frozen=True)
class Finished:
    """A segmented case, to be written.

    Attributes:
        case: The case; its images are the source.
        label: Label values, shape (Z, Y, X).
        geometry: Geometry of the image.
        labels: Labels of the dataset.
        codes: Label -> its concept in a terminology, for the labels that have one.
    """

    case: "Case"
    label: "np.ndarray"
    geometry: "Geometry"
    labels: Labels
    codes: Mapping[str, LabelCode] = field(default_factory=dict)


def _accept(cases: "Sequence[Case]") -> None:
    """Accept any cases."""


def _name(case: str, ending: str) -> str:
    return f"{case}{ending}"


def _nothing(output: Path, labels: Labels) -> None:
    """Write nothing beside the segmentations."""


@dataclass(frozen=True)
class OutputFormat:
    """A format.

    Attributes:
        summary: What it is, for the help.
        write: Writes a case to a path, completely or not at all.
        file: Path below the output directory, from the name of a case and the ending of the dataset's files.
        check: Raises a `UserError` before long work if the cases cannot be written in this format.
        beside: Writes files about the labels into the output directory.
    """

    summary: str
    write: Callable[[Finished, Path], None]
    file: Callable[[str, str], str]
    check: "Callable[[Sequence[Case]], None]"
    beside: Callable[[Path, Labels], None]


FORMATS: dict[str, OutputFormat] = {}
"""Formats by name."""

Write = Callable[[Finished, Path], None]


def output_format(
    name: str,
    summary: str,
    *,
    file: Callable[[str, str], str] = _name,
    check: "Callable[[Sequence[Case]], None]" = _accept,
    beside: Callable[[Path, Labels], None] = _nothing,
) -> Callable[[Write], Write]:
    """Register the decorated function, which writes a case, as the format `name`.

    Args:
        name: Name on the command line.
        summary: What it is, for the help.
        file: As in `OutputFormat`.
        check: As in `OutputFormat`.
        beside: As in `OutputFormat`.
    """

    def register(write: Write) -> Write:
        FORMATS[name] = OutputFormat(summary, write, file, check, beside)
        return write

    return register
