"""What a model file says about its model: numbers and origins, and nothing that could name a patient or a folder."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer

from autocrossdim.records.codes import Codes
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.summary import Summary


class _Part(BaseModel):
    """A part of the description.

    Fields in `LATER` are left out at their defaults, so that earlier versions can read the file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    LATER: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_later(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        default = {name: type(self).model_fields[name].default for name in self.LATER}
        return {name: value for name, value in content.items() if name not in default or value != default[name]}


class Start(_Part):
    """Where a network's training started.

    Attributes:
        source: `random`, name of a weight file, repository, or name of a trained model.
        tag: timm's tag of the weights; None if it is unknown.
        licence: Licence of the weights; None if it is unknown.
        sha256: SHA-256 of the weights; None if it is unknown.
        parameters: Number of parameters that matched, were adapted, or are new.
        started_from: Where the training of that trained model started; None if it is not a trained model.
    """

    source: str
    tag: str | None = None
    licence: str | None = None
    sha256: str | None = None
    parameters: dict[str, int] = {}
    started_from: "Start | None" = None


class Fold(_Part):
    """How one fold was trained. With `channel_dropout`, cases without some of the channels can be predicted."""

    training_cases: int
    unlabelled_scans: int = 0
    validation_cases: int
    epochs: int
    steps: int
    channel_dropout: float = 0.0
    start: Start

    LATER = frozenset({"unlabelled_scans"})


class Score(_Part):
    """A mean over cases and the ends of its interval; None where there was nothing to average."""

    mean: float | None
    low: float | None
    high: float | None


class Scores(_Part):
    """A cross-validation.

    Attributes:
        cases: Number of cases.
        groups: Number of groups (patients).
        level: Level of the intervals.
        foreground: Mean over the labels, by metric.
        labels: Scores by label and metric.
        scope: What the scores were computed on, as `Summary.scope`; None if all slices count.
    """

    cases: int
    groups: int
    level: float
    foreground: dict[str, Score]
    labels: dict[str, dict[str, Score]]
    scope: str | None = None


class Trained(_Part):
    """A trained configuration.

    Attributes:
        folds: Its folds by name (`fold_0`).
        cross_validation: Its cross-validation; None if there was none.
        stage_only: Whether it is only the previous stage of a cascade, and not averaged.
    """

    folds: dict[str, Fold]
    cross_validation: Scores | None
    stage_only: bool = False

    LATER = frozenset({"stage_only"})


class Data(_Part):
    """The cases trained or validated on: number, and shape (voxels) and spacing (mm), z, y, x, as read."""

    cases: int
    median_shape: tuple[int, int, int]
    median_spacing: tuple[float, float, float]
    min_spacing: tuple[float, float, float]
    max_spacing: tuple[float, float, float]


class About(_Part):
    """What is known of the data, the training and the results; `data` is None where the fingerprint is not at hand.

    `codes` are the concepts of the labels in a terminology such as SNOMED CT, for the labels that have one.
    """

    data: Data | None
    configurations: dict[str, Trained]
    codes: Codes = {}


def start(provenance: Mapping[str, Any]) -> Start:
    """What a checkpoint's provenance says, without folders."""
    model = str(provenance.get("model") or "")
    if re.search(r"models[/\\]\w+[/\\]slices[/\\]fold_\w+[/\\]checkpoint_\w+$", model):
        source = "its 2D counterpart"
    elif known := re.search(r"models[/\\](\w+)[/\\]fold_(\w+)[/\\]checkpoint_\w+$", model):
        source = f"a trained model ({known[1]}, fold {known[2]})"
    elif re.fullmatch(r"hf://[\w./@-]+", model):
        source = model
    elif model:
        source = _file_name(model) if model.endswith(".acd") else "a trained model"
    else:
        source = str(provenance.get("source") or provenance.get("weights") or "not known")
        source = source if re.fullmatch(r"timm/[\w.-]+", source) else _file_name(source)
    before = provenance.get("started_from")
    parameters = (provenance.get("report") or provenance).get("parameters") or {}
    return Start(
        source=source,
        tag=provenance.get("tag"),
        licence=provenance.get("licence"),
        sha256=provenance.get("sha256"),
        parameters=parameters,
        started_from=start(before) if before else None,
    )


def _file_name(path: str) -> str:
    """The last part of a path, of whatever system."""
    return PureWindowsPath(PurePath(path).name).name


def scores(summary: Summary) -> Scores:
    """The means and intervals of a summary, without its cases."""
    ends = summary.interval
    return Scores(
        cases=summary.n_cases,
        groups=summary.n_groups,
        level=ends.level,
        foreground=_scores(summary.foreground_mean, ends.foreground_mean),
        labels={summary.name(key): _scores(mean, ends.mean.get(key, {})) for key, mean in summary.mean.items()},
        scope=summary.scope,
    )


def data(fingerprint: Path, cases: Sequence[str]) -> Data | None:
    """Measurements of the cases; None where the fingerprint is missing or is not of all of them.

    Raises:
        UserError: The fingerprint is damaged.
    """
    if not fingerprint.exists():
        return None
    known = {case.name: case for case in Fingerprint.read(fingerprint).cases}
    if not cases or not known.keys() >= set(cases):
        return None
    shapes = np.array([known[name].shape for name in cases])
    spacings = np.array([known[name].spacing for name in cases])
    return Data(
        cases=len(cases),
        median_shape=tuple(int(n) for n in np.median(shapes, axis=0)),
        median_spacing=tuple(np.median(spacings, axis=0).tolist()),
        min_spacing=tuple(spacings.min(axis=0).tolist()),
        max_spacing=tuple(spacings.max(axis=0).tolist()),
    )


def _scores(means: Mapping[str, float], ends: Mapping[str, Sequence[float]]) -> dict[str, Score]:
    return {
        metric: Score(mean=_known(mean), low=_known(ends[metric][0]), high=_known(ends[metric][1]))
        for metric, mean in means.items()
        if metric in ends
    }


def _known(value: float | None) -> float | None:
    """NaN as None, which JSON has."""
    return None if value is None or not math.isfinite(value) else float(value)
