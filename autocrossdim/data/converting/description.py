"""What a layout says about its scans, before any image is opened."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from autocrossdim.data.converting.sources import Array, Source
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.splits import Split


@dataclass(frozen=True)
class SourceCase:
    """One case of a layout.

    Attributes:
        name: Name in the dataset.
        channels: One source per channel; one for all channels of a colour picture.
        label: Its label; None if the case has none, which makes it a test case.
        group: Patient, if several cases may come from one.
        test: Whether it belongs to the test set even though it has a label.
        facts: What else the layout says about the case, for the record.
    """

    name: str
    channels: tuple[Source, ...]
    label: Source | None
    group: str | None = None
    test: bool = False
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def part(self) -> str:
        """`Tr` for a training case, `Ts` for a test case."""
        return "Ts" if self.test or self.label is None else "Tr"


@dataclass(frozen=True)
class Examined:
    """Findings in one case, one sentence each: faults prevent the conversion, warnings do not.

    Attributes:
        faults: What prevents the conversion.
        warnings: What may be intended but should be known.
        dims: 2 or 3; None if the image could not be read.
        overlaps: Number of voxels in which a structure was painted over another, by overlap ("tumour over organ").
        assumed: Orientation code that the converted image will state although its source states none; None otherwise.
    """

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    overlaps: dict[str, int] = field(default_factory=dict)
    dims: int | None = None
    assumed: str | None = None


Examination = Callable[[SourceCase, list[Array], Array, Geometry], Examined]
"""A check that only one layout needs: case, channels (C, Z, Y, X), label values (Z, Y, X), their geometry."""


@dataclass(frozen=True)
class Description:
    """A source in one of the layouts.

    Attributes:
        channel_names: Name of each channel.
        labels: As in dataset.json, background included; lists are regions.
        cases: Every case that can be described.
        regions_class_order: As in dataset.json, if there are regions.
        file_ending: Ending of the files of the dataset.
        splits: Folds that the source defines.
        has_groups: Whether the layout can say which cases are of one patient, or has one case per patient.
        about: `name`, `reference`, `licence` and `description` of the source, as far as they are known.
        faults: What is wrong with the source, one sentence each.
        warnings: What may be intended but should be known.
        examine: Check that only this layout needs.
    """

    channel_names: tuple[str, ...]
    labels: Mapping[str, int | list[int]]
    cases: Sequence[SourceCase]
    regions_class_order: tuple[int, ...] | None = None
    file_ending: str = ".nii.gz"
    splits: tuple[Split, ...] | None = None
    has_groups: bool = True
    about: Mapping[str, Any] = field(default_factory=dict)
    faults: Sequence[str] = ()
    warnings: Sequence[str] = ()
    examine: Examination | None = None
