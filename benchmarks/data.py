"""What do mirroring, incomplete annotation and a growing dataset do to the result?

    python benchmarks/data.py mirroring --data ../shared/data --work FOLDER
    python benchmarks/data.py annotation --data ../shared/data --work FOLDER --weights FILE
    python benchmarks/data.py slices --data ../shared/data --work FOLDER --weights FILE

`data_mirroring.py`, `data_annotation.py` and `data_slices.py` describe the arms. Each run is one line of
`<work>/data.jsonl`; runs that are already there are skipped. `--arm` runs single rows of the tables, which belong to
results/data.md.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import data_annotation
import data_mirroring
import data_slices
from clock import Clock
from data_run import Run
from data_table import table
from runs import Runs

EXPERIMENTS = {"mirroring": data_mirroring, "annotation": data_annotation, "slices": data_slices}


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", type=Path, help="File with encoder weights, named after it (not for `mirroring`).")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="Epochs of 25 steps (default: those of the tables).")
    parser.add_argument("--arm", action="append", help="Only this one; repeat for several (default: all).")
    arguments = parser.parse_args()
    experiment = EXPERIMENTS[arguments.experiment]
    epochs = arguments.epochs or experiment.EPOCHS
    runs = Runs(arguments.work / "data.jsonl")
    for seed in arguments.seeds:
        folder = arguments.work / f"{arguments.experiment}_{epochs}_{seed}"
        for arm in arguments.arm or experiment.ARMS:
            options = {"experiment": arguments.experiment, "arm": arm, "seed": seed, "epochs": epochs}
            if runs.has(options):
                continue
            with Clock() as clock:
                found = experiment.ARMS[arm](Run(arguments.data, arguments.weights, folder, seed, epochs, arm))
            runs.add({**options, **clock.record(), **found})
    chosen = [r for r in runs.read() if (r["experiment"], r["epochs"]) == (arguments.experiment, epochs)]
    print(table(chosen, experiment.DIFFERENCES))


if __name__ == "__main__":
    main()
