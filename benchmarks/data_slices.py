"""Arms of `data.py` on annotated slices of thick-sliced volumes: SunnybrookLV with Omnia-Net.

Each arm leaves out one of three patients at a time, trains on some slices of the other two, and is tested on the two
volumes of the one left out, with complete annotation. All arms have the same network and number of steps.
"""

from typing import Any

import numpy as np
from data_cases import dice, sparse, train, write_raw
from data_run import Arm, Run
from train_cases import DATASETS, without_one_patient

EPOCHS = 8
PATIENTS = range(3)
DATASET = DATASETS["SunnybrookLV"]
DIFFERENCES = [
    ("every 2nd slice", "2 volumes"),
    ("every 4th slice", "1 volume"),
    ("every 8th slice", "1 volume"),
    ("every 2nd slice", "4 volumes"),
    ("every 4th slice", "4 volumes"),
]


def measure(run: Run, *, volumes: int = 4, every: int = 1) -> dict[str, Any]:
    """Train on every k-th slice of some volumes, once per patient left out.

    Args:
        run: The training.
        volumes: Number of volumes, drawn by the seed from the four of the two patients.
        every: Annotate every k-th slice.
    """
    source, slices, per_case = run.data / DATASET, 0, {}
    for patient in PATIENTS:
        random = np.random.default_rng([run.seed, patient])
        training, test = without_one_patient(source, patient)
        cases = [str(case) for case in random.permutation(training)[:volumes]]
        raw, work = run.path / str(patient) / "raw" / DATASET, run.path / str(patient) / "work"
        keys = {} if every == 1 else {"unannotated_slices": "empty"}
        slices += sum(write_raw(source, raw, cases, sparse(every, random), **keys).values())
        train(raw, work, patch_size=(256, 256), batch_size=2, weights=run.weights, seed=run.seed, epochs=run.epochs)
        per_case |= dice(source, raw, work, test)
    return {"slices": slices, "per_case": per_case}


def arm(**choice: int) -> Arm:
    """Return the arm with some volumes, or some slices of each."""
    return lambda run: measure(run, **choice)


ARMS: dict[str, Arm] = {
    "4 volumes": arm(),
    "2 volumes": arm(volumes=2),
    "1 volume": arm(volumes=1),
    "every 2nd slice": arm(every=2),
    "every 4th slice": arm(every=4),
    "every 8th slice": arm(every=8),
}
