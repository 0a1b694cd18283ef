"""The model card: what users of a model file have to know, written from what the file records."""

from jinja2 import Undefined

from autocrossdim.models.about import About, Score, Start
from autocrossdim.records.best import Best
from autocrossdim.records.plan import Plan
from autocrossdim.system.templates import render


def write(plan: Plan, about: About, program: str, file: str, best: Best | None = None) -> str:
    """Return the card in Markdown.

    Args:
        plan: Plan with the configurations in the file.
        about: Data, training and results.
        program: Version of autocrossdim.
        file: Name of the model file, for the commands.
        best: Result of `find_best` for the model; None without one.
    """
    return render(
        "autocrossdim.models",
        "card.md.jinja",
        {"cell": _cell, "licence": licence, "mm": _mm, "origin": origin, "score": _score},
        plan=plan,
        about=about,
        labels=plan.labels.names,
        program=program,
        file=file,
        best=best,
    )


def _cell(text: str) -> str:
    """Return a text for one cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def _mm(value: float) -> str:
    return f"{value:.3g}"


def _score(score: Score | Undefined, digits: int) -> str:
    if isinstance(score, Undefined) or score.mean is None:
        return "–"
    ends = "" if score.low is None or score.high is None else f" ({score.low:.{digits}f}–{score.high:.{digits}f})"
    return f"{score.mean:.{digits}f}{ends}"


def origin(start: Start) -> str:
    """Return where training started, with what that started from."""
    beginnings = [start.source, *([f"started from {origin(start.started_from)}"] if start.started_from else [])]
    return ", which ".join(beginnings)


def licence(start: Start) -> str:
    """Return the licence of the first starting weights."""
    if start.source == "random":
        return "none needed"
    if start.started_from:
        return licence(start.started_from)
    return start.licence or "not known"
