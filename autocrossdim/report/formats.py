"""How the report writes numbers, intervals, sizes and pictures."""

import base64
import math
from collections.abc import Iterable, Sequence

import numpy as np

from autocrossdim.records.plan import Configuration


def data_uri(picture: bytes, kind: str = "png") -> str:
    """Return a picture as the address of an image; `kind` is `png` or `webp`."""
    return f"data:image/{kind};base64," + base64.b64encode(picture).decode()


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with thousands separated; a dash if it is unknown."""
    return "–" if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def operations(count: float) -> str:
    """Return a number of multiply-adds in millions or billions, with two significant digits below 10."""
    value, unit = (count / 1e9, "billion") if count >= 999.5e6 else (count / 1e6, "million")
    return f"{value:,.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"


def ends(interval: Sequence[float] | None, digits: int = 3) -> str:
    """Return the ends of an interval with a dash between them; nothing if they are unknown."""
    if interval is None or not np.isfinite(interval).all():
        return ""
    return f"{interval[0]:.{digits}f}–{interval[1]:.{digits}f}"


def between(interval: Sequence[float], digits: int = 2) -> str:
    """Return the ends of an interval that may be negative; a dash if they are unknown."""
    return f"{interval[0]:,.{digits}f} to {interval[1]:,.{digits}f}" if np.isfinite(interval).all() else "–"


def sizes(values: Iterable[float]) -> str:
    """Return spacings or other sizes along the axes."""
    return " × ".join(f"{value:.3g}" for value in values)


def network(configuration: Configuration) -> str:
    """Return the name of a configuration's network."""
    if configuration.kind == "plain":
        return "U-Net"
    return "DS-Net" if configuration.kind == "ds" else "Omnia-Net" if configuration.dims == 2 else "DX-Net"
