"""Does one distilled network keep what an ensemble knows, and do scans without labels help it?

    python benchmarks/distil.py --data ../shared/data --work FOLDER [--cases 8] [--seeds 0 1] [--weights FILE]

Omnia-Net on Hippocampus, `--cases` labelled cases chosen by the seed, tested on the other training cases. Per seed:
the folds of a cross-validation (the teachers), one network trained on all cases without teachers, a student of the
teachers on the same cases, and one that also learns from unlabelled scans. All take the same number of steps.
The teachers are tested as one fold and as the ensemble, with mirroring; the other networks with and without it (a
student never uses it). Each seed is one line of `<work>/distil.jsonl`; seeds already there are skipped.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from clock import Clock
from paired import differences, mean_difference, scores
from runs import Runs, run_parser
from train_cases import DATASETS
from unlabelled import STEPS_PER_EPOCH, prepare

import autocrossdim
import autocrossdim.inference.folder  # before anything is timed
import autocrossdim.inference.predictor
from autocrossdim.system.files import read_json, write_json

CONFIG = "omnia"
STUDENT = f"{CONFIG}_distilled"
COMPARED = (
    ("student", "one fold, mirrored"),
    ("student", "supervised"),
    ("student", "ensemble, mirrored"),
    ("student + unlabelled", "student"),
    ("student + unlabelled", "supervised"),
    ("student + unlabelled", "ensemble, mirrored"),
)


class Seed:
    """The runs of one seed, each skipped where it is complete.

    Args:
        folder: Folder of the seed.
        seed: The seed.
        epochs: Epochs of 25 steps.
        weights: File with encoder weights, named after the encoder.
    """

    def __init__(self, folder: Path, *, seed: int, epochs: int, weights: Path | None) -> None:
        self.folder, self.raw = folder, folder / "raw" / DATASETS["Hippocampus"]
        self.encoder = {} if weights is None else {"encoder": weights.name.partition(".")[0]}
        self.training: dict[str, Any] = {
            "epochs": epochs,
            "weights": "random" if weights is None else str(weights),
            "device": "cpu",
        }
        self.settings = {"steps_per_epoch": STEPS_PER_EPOCH, "seed": seed, "workers": 0}

    def teach(self, work: Path) -> None:
        """Plan, train the folds and one network on all cases, and choose."""
        autocrossdim.plan_and_preprocess(self.raw, work=work, trial=False, processes=1, **self.encoder)
        for fold in ((), "all"):
            autocrossdim.train(self.raw, work=work, config=CONFIG, fold=fold, set=self.settings, **self.training)
        autocrossdim.find_best(self.raw, work=work, device="cpu", processes=1)

    def distil(self, work: Path, *, unlabelled: bool) -> None:
        """Train a student."""
        settings = self.settings if unlabelled else {**self.settings, "unlabelled": 0}
        autocrossdim.distil(self.raw, work=work, config=CONFIG, fold="all", set=settings, **self.training)

    def test(self, work: Path, name: str, **options: Any) -> dict[str, Any]:
        """Segment the test cases and compare them with their labels; a result that exists is read."""
        predictions, file = self.folder / "segmented" / name, self.folder / "results" / f"{name}.json"
        if file.exists():
            return dict(read_json(file))
        with Clock() as clock:
            autocrossdim.predict(
                self.raw, self.folder / "images", predictions, work=work, device="cpu", overwrite=True, **options
            )
        summary = autocrossdim.evaluate(predictions, self.folder / "labels", dataset=self.raw, processes=1)
        result = {"prediction": clock.record(), **scores(summary)}
        write_json(file, result)
        return result


def measure(folder: Path, *, seed: int, epochs: int, weights: Path | None) -> dict[str, Any]:
    """Return the results of one seed."""
    runs = Seed(folder, seed=seed, epochs=epochs, weights=weights)
    plain, more = folder / "work", folder / "work_unlabelled"
    runs.teach(plain)
    found = {
        "one fold, mirrored": runs.test(plain, "fold", config=CONFIG, fold=0),
        "ensemble, mirrored": runs.test(plain, "ensemble", config=CONFIG),
        "supervised, mirrored": runs.test(plain, "supervised_mirrored", config=CONFIG, fold="all"),
        "supervised": runs.test(plain, "supervised", config=CONFIG, fold="all", mirroring=False),
    }
    if not more.exists():
        shutil.copytree(plain, more)
    for work, name in ((plain, "student"), (more, "student + unlabelled")):
        runs.distil(work, unlabelled=work == more)
        found[name] = runs.test(work, name.split()[-1], config=STUDENT)
    return found


def table(records: list[dict[str, Any]]) -> str:
    """Return the results as Markdown tables: the mean over seeds of each network, and the paired differences."""
    lines = ["| network | Dice | each seed | HD95 (mm) | prediction, CPU s per case |", "|---|---|---|---|---|"]
    for name in records[0]["found"]:
        runs = [record["found"][name] for record in records]
        each = ", ".join(f"{run['dice']:.3f}" for run in runs)
        seconds = np.mean([run["prediction"]["cpu_seconds"] / len(run["per_case"]) for run in runs])
        dice, hd95 = (np.mean([run[key] for run in runs]) for key in ("dice", "hd95"))
        lines.append(f"| {name} | {dice:.3f} | {each} | {hd95:.2f} | {seconds:.2f} |")
    lines += ["", "| compared | difference in Dice, 95 % interval |", "|---|---|"]
    for first, second in COMPARED:
        per_seed = [differences(*(record["found"][each]["per_case"] for each in (first, second))) for record in records]
        lines.append(f"| {first} − {second} | {mean_difference(per_seed)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing, each seed in a process of its own, and print the tables."""
    parser = run_parser(__doc__, seeds=[0, 1])
    parser.add_argument("--epochs", type=int, default=16, help="Epochs of 25 steps.")
    parser.add_argument("--scans", type=int, default=40, help="Unlabelled scans, the first of 100.")
    arguments = parser.parse_args()
    runs = Runs(arguments.work / "distil.jsonl")
    if arguments.only:
        job = json.loads(arguments.only)
        folder = runs.folder(job)
        source = arguments.data / DATASETS["Hippocampus"]
        raw = prepare(source, folder, unlabelled=True, cases=job["cases"], seed=job["seed"], test=False)
        for file in sorted((raw / "imagesUn").iterdir())[job["scans"] :]:
            file.unlink()
        found = measure(folder, seed=job["seed"], epochs=job["epochs"], weights=arguments.weights)
        runs.add({**job, "found": found})
        return
    runs.run_missing(
        {"cases": arguments.cases, "seed": seed, "epochs": arguments.epochs, "scans": arguments.scans}
        for seed in arguments.seeds
    )
    print(table(runs.read()))


if __name__ == "__main__":
    main()
