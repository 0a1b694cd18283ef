"""The typed content of a challenge score in summary.json."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

ScoreName = Literal["chaos", "brats", "camus", "lesions"]
"""Scores that `autocrossdim evaluate --score` computes; each is one file in `evaluation/scores/`."""

Values = dict[str, int | float]  # by column; NaN where a value is undefined
Rows = dict[str, Values]  # by label, region or structure


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")


class ScoreTable(_Record):
    """A table of a score.

    Attributes:
        title: What the table shows.
        rows: Values by row and column. Columns name their unit.
    """

    title: str
    rows: Rows


class Score(_Record):
    """A score of all cases.

    Attributes:
        name: Name of the score, one of `ScoreName` when written by this version.
        tables: Tables of the score.
        notes: Sentences to know when reading the tables.
        cases: Values of each case (or patient) by row and column.
    """

    name: str
    tables: tuple[ScoreTable, ...]
    notes: tuple[str, ...] = ()
    cases: dict[str, Rows] = {}
