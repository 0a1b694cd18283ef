"""The typed content of a study on disk: the record of each run, and the results with their conclusion."""

import math
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict

from autocrossdim.records.concise import Concise
from autocrossdim.records.summary import Summary
from autocrossdim.system.files import read_record, write_json, write_text

REMEDY = "Delete it and run the study again."


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class CaseMetrics(_Record):
    """The metrics of one held-out case.

    Attributes:
        group: Group (patient) of the case; its own name if it has none.
        dice: Mean Dice over the labels; None if neither annotation nor segmentation has any.
        hd95: Mean HD95 over the labels; None likewise.
        labels: Dice by label name; None likewise.
    """

    group: str
    dice: float | None
    hd95: float | None
    labels: dict[str, float | None]


class CurvePoint(_Record):
    """One epoch of a run.

    Attributes:
        seconds: Training time up to its end, including networks that were trained before.
        loss: Mean training loss.
        dice: Pseudo-Dice of patches of held-out cases; None if they were not used during training.
    """

    seconds: float
    loss: float
    dice: float | None


class StudyRun(_Record):
    """One finished run.

    Attributes:
        arm: Name of the arm.
        size: Number of training cases.
        slicing: Number of slices averaged into one.
        seed: Seed of the training cases and of the training.
        options: Everything that determines the run, by name.
        anisotropy: Largest / smallest median spacing of the data.
        configuration: Name of the configuration that was trained, or of those that were averaged.
        cases: Metrics of each held-out case by name.
        unit: Unit of HD95.
        scope: What the metrics were computed on, as `Summary.scope`; None if all slices count.
        training_seconds: Training time, including networks that were trained before.
        prediction_seconds: Time per held-out case, mirroring included.
        memory_bytes: Computed memory of a training step.
        steps: Optimiser steps of the network itself.
        curve: Epochs of the network itself.
    """

    arm: str
    size: int
    slicing: int = 1
    seed: int
    options: dict[str, Any]
    anisotropy: float
    configuration: str
    cases: dict[str, CaseMetrics]
    unit: str = "mm"
    scope: str | None = None
    training_seconds: float
    prediction_seconds: float
    memory_bytes: int
    steps: int
    curve: tuple[CurvePoint, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read the record of a run.

        Raises:
            UserError: The file is missing or damaged.
        """
        return read_record(cls, path, remedy=REMEDY)

    def write(self, path: Path) -> None:
        """Write the record."""
        write_json(path, self.model_dump())


class Comparison(_Record):
    """The paired difference in Dice between two arms, over all held-out cases and seeds that both have.

    Attributes:
        arm: The arm compared.
        reference: The arm it is compared with.
        size: Number of training cases.
        slicing: Number of slices averaged into one.
        seeds: Number of pairs of runs.
        difference: Mean of arm minus reference.
        low: Lower end of the interval; None if it is unknown.
        high: Upper end.
    """

    arm: str
    reference: str
    size: int
    slicing: int = 1
    seeds: int
    difference: float
    low: float | None
    high: float | None

    @property
    def is_shown(self) -> bool:
        """Whether the interval excludes 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


class Table(_Record):
    """A table of text. Columns after the first `left` ones hold numbers."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    left: int = 1

    def markdown(self) -> str:
        """Return the table in Markdown."""
        ruler = ["---"] * self.left + ["---:"] * (len(self.headings) - self.left)
        lines = [self.headings, ruler, *self.rows]
        return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


class StudyResults(Concise, _Record):
    """The content of results.json.

    Attributes:
        study: Name of the study.
        dataset: Name of the dataset.
        question: What the study asks.
        conclusion: One sentence.
        notes: Sentences that are needed to read the table.
        table: Means per arm, with intervals.
        comparisons: The paired differences.
        numbers: Further results, by name.
        runs: The runs that the results are computed from.
    """

    study: str
    dataset: str
    question: str
    conclusion: str
    notes: tuple[str, ...]
    table: Table
    comparisons: tuple[Comparison, ...] = ()
    numbers: dict[str, float | None] = {}
    runs: tuple[StudyRun, ...]

    def __str__(self) -> str:
        return f"{self.study}, {self.dataset}: {self.conclusion}"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read results.json.

        Raises:
            UserError: The file is missing or damaged.
        """
        return read_record(cls, path, remedy=REMEDY)

    def write(self, folder: Path) -> None:
        """Write results.json and table.md into the directory of the study."""
        write_json(folder / "results.json", self.model_dump())
        parts = [f"# {self.question}", self.conclusion, self.table.markdown().rstrip(), *self.notes]
        write_text(folder / "table.md", "\n\n".join(parts) + "\n")


def case_metrics(summary: Summary, ending: str) -> dict[str, CaseMetrics]:
    """Return the metrics of each case of a summary by the case's name."""
    found = {}
    for case in summary.metric_per_case:
        name = case.file.removesuffix(ending)
        distances = [float(metrics.get("HD95", math.nan)) for metrics in case.metrics.values()]
        known = [distance for distance in distances if not math.isnan(distance)]
        found[name] = CaseMetrics(
            group=name if case.group is None else case.group,
            dice=_known(case.dice),
            hd95=sum(known) / len(known) if known else None,
            labels={summary.name(key): _known(float(metrics["Dice"])) for key, metrics in case.metrics.items()},
        )
    return found


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
