"""The typed content of summary.json: nnU-Net's schema, with intervals, counts and label names beside it."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from autocrossdim.records.calibration import Calibration, CaseScore
from autocrossdim.records.concise import Concise
from autocrossdim.records.score import Score
from autocrossdim.system.files import read_record, write_json
from autocrossdim.system.text import counted

Metrics = dict[str, int | float]  # by the metric's name; voxel counts are whole numbers, as nnU-Net writes them
Unit = Literal["mm", "pixels"]
Ends = tuple[float, float]  # of an interval

EVERY_CASE_HAS = ("Dice", "n_pred", "n_ref")  # for each label, whoever wrote the file
COUNTS = ("n_cases", "n_groups", "n_present", "n_missed", "n_false_alarms")  # written too, and recomputed when read


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")


class CaseResult(_Record):
    """The metrics of one case.

    Attributes:
        reference_file: Path of the reference.
        prediction_file: Path of the prediction.
        group: Group (patient) of the case. Cases of one group are resampled together; None means a group of its own.
        unit: Unit of distances: pixels for images without a voxel spacing (PNG), else mm.
        annotated_slices: Number of annotated slices, the only ones that count, and of all slices; None if every slice
            counts.
        metrics: Metrics by label key, as `evaluation.metrics.case_metrics` returns them. All are NaN for a label that
            was not annotated in this case.
    """

    reference_file: str
    prediction_file: str
    group: str | None = None
    unit: Unit = "mm"
    annotated_slices: tuple[int, int] | None = None
    metrics: dict[str, Metrics]

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for key, metrics in self.metrics.items():
            missing = [name for name in EVERY_CASE_HAS if name not in metrics]
            if missing:
                raise ValueError(f"{self.file} has no {missing[0]} for label {key}")
        return self

    @property
    def file(self) -> str:
        """File name of the prediction. References may be named otherwise (`dataset` in dataset.json)."""
        return Path(self.prediction_file).name

    @property
    def dice(self) -> float:
        """Mean Dice over the labels; NaN if neither prediction nor reference has any."""
        known = [metrics["Dice"] for metrics in self.metrics.values() if not math.isnan(metrics["Dice"])]
        return sum(known) / len(known) if known else math.nan

    @property
    def cluster(self) -> str:
        """Name of what the case is resampled with: its group, or the case alone."""
        return f"case {self.reference_file}" if self.group is None else f"group {self.group}"

    def is_annotated(self, key: str) -> bool:
        """Whether a label was annotated in this case."""
        return not math.isnan(self.metrics[key]["n_ref"])

    def in_reference(self, key: str) -> bool:
        """Whether the reference contains a label."""
        return self.metrics[key]["n_ref"] > 0

    def in_prediction(self, key: str) -> bool:
        """Whether the prediction contains a label."""
        return self.metrics[key]["n_pred"] > 0


class Intervals(_Record):
    """Confidence intervals of the means, (low, high); NaN with fewer than two groups of cases.

    Attributes:
        level: Confidence level, such as 0.95.
        method: How the intervals were computed.
        foreground_mean: Intervals of `Summary.foreground_mean`.
        mean: Intervals of `Summary.mean`.
    """

    level: float = math.nan
    method: str = "none"
    foreground_mean: dict[str, Ends] = {}
    mean: dict[str, dict[str, Ends]] = {}


class SummaryCalibration(Calibration):
    """The calibration of the model that `find_best` chose, with its case score."""

    case_score: CaseScore = CaseScore()


class Summary(Concise, _Record):
    """The metrics of a set of cases, their means and how far these can be trusted.

    `foreground_mean`, `mean` and `metric_per_case` are nnU-Net's. The other entries are ours, and readers of nnU-Net's
    files ignore them. They may be missing from a file. Label keys are nnU-Net's: `"1"` for a label, `"(1, 2)"` for a
    region.

    Attributes:
        foreground_mean: Mean over labels of their means, by metric.
        mean: Means over cases by label key and metric. NaN is left out.
        interval: Confidence intervals of both.
        labels: Label names by label key.
        skipped: File names of cases that were left out because they have no prediction.
        warnings: What the training of the folds shows that may affect the results, such as a fall-back to the weights
            before unlabelled scans.
        calibration: Calibration of the chosen model's probabilities.
        score: Score requested with `autocrossdim evaluate --score`.
        metric_per_case: Metrics of every case, sorted by file name.
    """

    foreground_mean: Metrics
    mean: dict[str, Metrics]
    interval: Intervals = Intervals()
    labels: dict[str, str] = {}
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    calibration: SummaryCalibration | None = None
    score: Score | None = None
    metric_per_case: Annotated[tuple[CaseResult, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for case in self.metric_per_case:
            if case.metrics.keys() != self.mean.keys():
                raise ValueError(f"{case.file} has metrics for other labels than 'mean'")
        return self

    @model_serializer(mode="wrap")
    def _with_counts(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content = dump(self)
        cases = content.pop("metric_per_case")  # the longest entry last
        if self.scope is not None:
            content["scope"] = self.scope
        return {**content, **{name: getattr(self, name) for name in COUNTS}, "metric_per_case": cases}

    def __str__(self) -> str:
        low, high = self.ends("Dice")
        interval = "" if math.isnan(low) else f" ({100 * self.interval.level:.0f} % interval {low:.3f}–{high:.3f})"
        labels = ", ".join(f"{self.name(key)} {mean['Dice']:.3f}" for key, mean in self.mean.items())
        return f"{counted(self.n_cases, 'case')}, mean Dice {self.foreground_mean['Dice']:.3f}{interval}; {labels}"

    @property
    def n_cases(self) -> int:
        """Number of cases."""
        return len(self.metric_per_case)

    @property
    def n_groups(self) -> int:
        """Number of groups (patients) the cases belong to."""
        return len({case.cluster for case in self.metric_per_case})

    @property
    def n_annotated(self) -> dict[str, int]:
        """Cases in which a label was annotated, whether it occurs or not, by label key."""
        return {key: sum(case.is_annotated(key) for case in self.metric_per_case) for key in self.mean}

    @property
    def is_partial(self) -> bool:
        """Whether any label was not annotated in some case."""
        return any(number < self.n_cases for number in self.n_annotated.values())

    @property
    def scope(self) -> str | None:
        """What the metrics were computed on, in words that follow a title; None if all slices count."""
        numbers = [case.annotated_slices for case in self.metric_per_case if case.annotated_slices is not None]
        if not numbers:
            return None
        annotated, total = (sum(column) for column in zip(*numbers, strict=True))
        return f"annotated slices only ({annotated:,} of {total:,})"

    @property
    def n_present(self) -> dict[str, int]:
        """Cases that have a label in prediction or reference, by label key: those its means are taken over."""
        return self._count(lambda expected, predicted: expected or predicted)

    @property
    def n_missed(self) -> dict[str, int]:
        """Cases whose reference has a label and whose prediction does not, by label key."""
        return self._count(lambda expected, predicted: expected and not predicted)

    @property
    def n_false_alarms(self) -> dict[str, int]:
        """Cases whose prediction has a label and whose reference does not, by label key."""
        return self._count(lambda expected, predicted: predicted and not expected)

    @property
    def has_unmatched(self) -> bool:
        """Whether any label is missed or falsely predicted in any case."""
        return any(self.n_missed.values()) or any(self.n_false_alarms.values())

    @property
    def unit(self) -> Unit:
        """Unit of HD95 and ASSD."""
        return "pixels" if all(case.unit == "pixels" for case in self.metric_per_case) else "mm"

    def name(self, key: str) -> str:
        """Return the name of a label, or its key where the file gives no name."""
        return self.labels.get(key, key)

    def ends(self, metric: str, key: str | None = None) -> Ends:
        """Return the confidence interval of a label's mean (all labels': None); NaN where it is unknown."""
        known: Mapping[str, Ends] = self.interval.foreground_mean if key is None else self.interval.mean.get(key, {})
        return known.get(metric, (math.nan, math.nan))

    def _count(self, counts: Callable[[bool, bool], bool]) -> dict[str, int]:
        return {
            key: sum(counts(case.in_reference(key), case.in_prediction(key)) for case in self.metric_per_case)
            for key in self.mean
        }

    @classmethod
    def read(cls, path: Path) -> "Summary":
        """Read a summary.json written by autocrossdim or by nnU-Net.

        Raises:
            UserError: The file is missing, damaged, or no summary.
        """
        return read_record(
            cls,
            path,
            fault="damaged or not an evaluation summary",
            remedy="Delete it and run the command that writes it again: `autocrossdim train` for trained folds, else "
            "`autocrossdim evaluate`.",
        )

    def write(self, path: Path) -> None:
        """Write summary.json. NaN is written as nnU-Net writes it: a bare `NaN`, which strict JSON does not know."""
        write_json(path, self.model_dump(exclude_none=True))
