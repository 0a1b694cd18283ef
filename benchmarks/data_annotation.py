"""Arms of `data.py` on incomplete annotation and growing datasets: Hippocampus with Omnia-Net.

Each arm trains one model and is tested on the same 16 held-out cases with complete annotation. All arms of a seed have
the same network and number of steps, and draw from the same 16 cases.
"""

import shutil
from typing import Any

import numpy as np
from data_cases import HIPPOCAMPUS, Change, dice, sparse, train, write_raw
from data_run import Arm, Run

from autocrossdim.data.annotated_slices import Label

EPOCHS = 8
VALUES = {"anterior": 1, "posterior": 2}
# The choice of the planner for 16 cases. It needs two cases with both labels to see that they keep their order; the
# merged dataset has none.
MIRRORED = ["left-right"]
DIFFERENCES = [
    ("every 2nd slice", "8 cases"),
    ("every 4th slice", "4 cases"),
    ("every 8th slice", "2 cases"),
    ("every 2nd slice", "16 cases"),
    ("merged", "16 cases"),
    ("merged", "anterior only"),
    ("merged", "posterior only"),
    ("merged", "merged, not declared"),
    ("merged", "merged, every axis mirrored"),
    ("8 cases, then 16", "16 cases"),
    ("8 cases, then 16", "8 cases"),
    ("16 cases", "8 cases"),
]


def measure(
    run: Run,
    cases: list[str],
    *,
    start: str | None = None,
    change: Change | None = None,
    tested: Change | None = None,
    **description: Any,
) -> dict[str, Any]:
    """Train on some cases, and test on the held-out ones.

    Args:
        run: The training.
        cases: Training cases.
        start: Starting weights; those of the file if None.
        change: Change of their label maps.
        tested: Change of the label maps of the held-out cases.
        description: Further keys of dataset.json.
    """
    source, raw, work = run.data / HIPPOCAMPUS, run.path / "raw" / HIPPOCAMPUS, run.path / "work"
    slices = write_raw(source, raw, cases, change, **{"mirror_axes": MIRRORED, **description})
    options = {"weights": run.weights, "start": start, "seed": run.seed, "epochs": run.epochs}
    train(raw, work, patch_size=(56, 40), batch_size=10, **options)
    return {"slices": sum(slices.values()), "per_case": dice(source, raw, work, run.held_out, tested)}


def complete(number: int) -> Arm:
    """Return the arm with the first cases, completely annotated."""
    return lambda run: measure(run, run.pool[:number])


def spread(every: int) -> Arm:
    """Return the arm with every k-th slice of 16 cases."""
    return lambda run: measure(
        run, run.pool, change=sparse(every, np.random.default_rng(run.seed)), unannotated_slices="empty"
    )


def previous(run: Run) -> dict[str, Any]:
    """Continue from the weights of eight cases after eight others were added."""
    if not run.path.exists():
        shutil.copytree(run.of("8 cases"), run.path, symlinks=True)
    return measure(run, run.pool, start="previous")


def merged(*, declared: bool = True, **description: Any) -> Arm:
    """Return the arm in which eight cases have only their anterior, and the other eight only their posterior part."""

    def arm(run: Run) -> dict[str, Any]:
        part = {case: "anterior" if index < 8 else "posterior" for index, case in enumerate(run.pool)}
        listed = {"annotated_labels": {case: [name] for case, name in part.items()}} if declared else {}
        keys: dict[str, Any] = {**listed, **description}
        return measure(run, run.pool, change=lambda case, label: _only(part[case], label), **keys)

    return arm


def alone(name: str) -> Arm:
    """Return the arm that learns one part from the eight cases in which it was annotated."""

    def arm(run: Run) -> dict[str, Any]:
        def only(_case: str, label: Label) -> Label:
            return _only(name, label)

        cases = run.pool[:8] if name == "anterior" else run.pool[8:]
        return measure(run, cases, change=only, tested=only, labels={"background": 0, name: VALUES[name]})

    return arm


def _only(name: str, label: Label) -> Label:
    return np.where(label == VALUES[name], label, 0)


ARMS: dict[str, Arm] = {
    "16 cases": complete(16),
    "8 cases": complete(8),
    "8 cases, then 16": previous,
    "merged": merged(),
    "anterior only": alone("anterior"),
    "posterior only": alone("posterior"),
    "every 2nd slice": spread(2),
    "every 4th slice": spread(4),
    "every 8th slice": spread(8),
    "4 cases": complete(4),
    "2 cases": complete(2),
    "merged, not declared": merged(declared=False),
    "merged, every axis mirrored": merged(mirror_axes=["left-right", "front-back", "top-bottom"]),
}
