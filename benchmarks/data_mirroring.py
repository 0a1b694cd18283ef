"""Arms of `data.py` on mirroring: labels that differ only in their position, with DX-Net from random weights.

Hippocampus: 8 cases (anterior and posterior part), tested on 15 training cases that no seed trains on. Generated
volumes: 10 cases with a left and a right organ that look alike, tested on 8 others, all of them drawn by the seed.
"""

from pathlib import Path
from typing import Any

import numpy as np
from data_cases import HIPPOCAMPUS, dice, dice_of, write_raw
from data_run import Arm, Run

import autocrossdim
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, paired_organs, write_dataset
from autocrossdim.system.files import read_json, write_json

PAIR = "Dataset903_Pair"
SIDES = {"background": 0, "right kidney": 1, "left kidney": 2}
AXES: dict[str, list[str] | None] = {
    "every axis": ["left-right", "front-back", "top-bottom"],
    "no axis": [],
    "planner": None,
}
SETTINGS = {"steps_per_epoch": 25, "validation_batches": 1, "slices_first": False, "workers": 1}
EPOCHS = 8
CASES = 8
SEEDS = range(3)
DIFFERENCES = [
    (f"{data}, {first}", f"{data}, {second}")
    for data in ("organs", "Hippocampus")
    for first, second in (("planner", "every axis"), ("no axis", "every axis"), ("planner", "no axis"))
]


def hippocampus(axes: list[str] | None) -> Arm:
    """Return the arm that mirrors these axes on Hippocampus; the planner chooses if None."""

    def measure(run: Run) -> dict[str, Any]:
        orders = [[str(name) for name in np.random.default_rng(seed).permutation(run.names)] for seed in SEEDS]
        raw, work = run.path / "raw" / HIPPOCAMPUS, run.path / "work"
        write_raw(run.data / HIPPOCAMPUS, raw, orders[run.seed][:CASES], **_description(axes))
        mirrored = _train(raw, work, run)
        seen = {name for order in orders for name in order[:CASES]}
        held_out = [name for name in run.names if name not in seen]
        return {"axes": mirrored, "per_case": dice(run.data / HIPPOCAMPUS, raw, work, held_out)}

    return measure


def organs(axes: list[str] | None) -> Arm:
    """Return the arm that mirrors these axes on generated volumes; the planner chooses if None."""

    def measure(run: Run) -> dict[str, Any]:
        raw, work = run.path / "raw" / PAIR, run.path / "work"
        if not raw.exists():
            write_dataset(raw, paired_organs, SIDES, ISOTROPIC_SPACING, training=10, test=8, seed=run.seed)
            write_json(raw / "dataset.json", {**read_json(raw / "dataset.json"), **_description(axes)})
        mirrored = _train(raw, work, run)
        scores = dice_of(raw, work, raw / "imagesTs", raw / "labelsTs")
        return {"axes": mirrored, "per_case": {f"seed {run.seed} {case}": score for case, score in scores.items()}}

    return measure


def _description(axes: list[str] | None) -> dict[str, Any]:
    return {} if axes is None else {"mirror_axes": axes}


def _train(raw: Path, work: Path, run: Run) -> list[int]:
    """Plan and train; return the mirrored axes of a patch."""
    plan = autocrossdim.plan_and_preprocess(raw, work=work, memory=4, trial=False, processes=1)
    settings = {**SETTINGS, "seed": run.seed}
    autocrossdim.train(raw, work=work, fold="all", weights="random", device="cpu", epochs=run.epochs, set=settings)
    return list(plan.configuration().mirrored)


ARMS: dict[str, Arm] = {
    **{f"organs, {name}": organs(axes) for name, axes in AXES.items()},
    **{f"Hippocampus, {name}": hippocampus(axes) for name, axes in AXES.items()},
}
