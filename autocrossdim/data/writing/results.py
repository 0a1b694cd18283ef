"""The files of segmented cases in an output directory, in one of the formats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from autocrossdim.data.dataset import Case
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import ENDINGS, read_label
from autocrossdim.data.writing.registry import Finished, OutputFormat
from autocrossdim.data.writing.volumes import has_volumes, measure, write_table, write_volumes
from autocrossdim.records.codes import LabelCode
from autocrossdim.records.labels import Labels
from autocrossdim.records.origin import Origin, remove_origin


@dataclass(frozen=True)
class Results:
    """The segmentations in a directory, their volumes, and files about the labels.

    Attributes:
        output: The directory.
        labels: Labels of the dataset.
        ending: File ending of the dataset.
        format: Format of the segmentations.
        codes: Label -> its concept in a terminology, for the labels that have one.
        origin: What makes the segmentations; None if that is no single model.
    """

    output: Path
    labels: Labels
    ending: str
    format: OutputFormat
    codes: Mapping[str, LabelCode] = field(default_factory=dict)
    origin: Origin | None = None

    def path(self, case: Case) -> Path:
        """Return the path of a segmentation."""
        return self.output / self.format.file(case.name, self.ending)

    def write(self, case: Case, label: np.ndarray, geometry: Geometry) -> None:
        """Write a case, the segmentation last: if it exists, the case is complete."""
        write_volumes(self.output, measure(case.name, label, geometry, self.labels, self.ending))
        if self.origin is None:
            remove_origin(self.output, case.name)
        else:
            self.origin.write(self.output, case.name)
        self.format.write(Finished(case, label, geometry, self.labels, self.codes), self.path(case))

    def finish(self, cases: Sequence[Case]) -> None:
        """Write `volumes.csv` and the files about the labels, after the cases were written.

        Args:
            cases: All cases of this process; those segmented by earlier versions are measured now.
        """
        for case in cases:
            path = self.path(case)
            if not has_volumes(self.output, case.name) and path.name.endswith(ENDINGS):
                label, geometry = read_label(path)
                write_volumes(self.output, measure(case.name, label, geometry, self.labels, self.ending))
        write_table(self.output)
        self.format.beside(self.output, self.labels)
