"""Planners and trainers are found by name through entry points, so that other packages can add theirs."""

from importlib.metadata import entry_points
from typing import Any, Literal

from autocrossdim.system.errors import UserError


def find(group: Literal["planners", "trainers"], name: str) -> Any:
    """Load the planner or trainer called `name`.

    Raises:
        UserError: Nothing of that name is installed; the message lists what is.
    """
    known = {point.name: point for point in entry_points(group=f"autocrossdim.{group}")}
    if name not in known:
        raise UserError(
            f"No {group[:-1]} is called '{name}'. Installed: {', '.join(sorted(known)) or 'none'}. Install the package "
            "that provides it, or choose one of these when planning."
        )
    return known[name].load()
