"""One file per layout. Importing this package registers all of them."""

from pathlib import Path

from autocrossdim.data.converting.layouts import annotated_dicom, brats, camus, chaos, msd, pairs, table
from autocrossdim.data.converting.registry import LAYOUTS, Layout
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import reading
from autocrossdim.system.text import shown_path

__all__ = ["annotated_dicom", "brats", "camus", "chaos", "detect", "find", "msd", "pairs", "table"]

GENERAL = ("dicom", "pairs")
"""Layouts that others resemble, so that they are tried last."""


@reading()
def detect(source: Path) -> Layout | None:
    """Return the layout of a directory or file; None if it matches no known layout."""
    specific_first = sorted(LAYOUTS.values(), key=lambda layout: layout.name in GENERAL)
    return next((layout for layout in specific_first if layout.detects(source)), None)


@reading()
def find(source: Path, name: str | None) -> Layout:
    """Return the layout called `name`, or the one that a source has.

    Raises:
        UserError: No such source or layout, or no layout is recognised.
    """
    if not source.exists():
        raise UserError(f"{shown_path(source)}: no such file or directory.")
    known = ", ".join(LAYOUTS)
    if name is not None:
        if name not in LAYOUTS:
            raise UserError(f"--layout {name}: no such layout. Use one of {known}.")
        return LAYOUTS[name]
    found = detect(source)
    if found is None:
        raise UserError(
            f"{source}: none of the layouts is recognised here. Give the directory that was unpacked, or name the "
            f"layout with --layout: {known}."
        )
    return found
