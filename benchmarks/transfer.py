"""What do 2D weights bring, in 2D and in 3D? Paired runs on the real data: same cases, steps and seeds, other start.

    python benchmarks/transfer.py --data ../shared/data --weights FILE --work FOLDER [--only slices]

Every run is one line of `<work>/transfer.jsonl`; runs already there are skipped, so the job can be interrupted. The
table printed at the end is the one in docs/explanation/transfer.md. SunnybrookSlices is tested on slices of five other
patients, Hippocampus on its 16 labelled cases of `imagesTs`.

For any other dataset, `autocrossdim study weights` and `study inflation` replace this script; it is kept because
the published table was made with it, and for arms that they do not have (learning rates, a stem at stride 1).
"""

import argparse
import itertools
import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from runs import Runs

import autocrossdim
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.files import read_json, write_json

ENCODER = "tf_efficientnetv2_b0"
SETTINGS = {"epochs": 6, "steps_per_epoch": 25, "validation_batches": 1, "slices_first": False}
SEEDS = (0, 1, 2)
SIZES = (8, 32)
TEST_SLICES = 40


@dataclass(frozen=True)
class Arm:
    """One way to train.

    Attributes:
        name: as the table says it.
        config: `omnia` or `dx`.
        weights: as on the command line, FILE standing for the weight file.
        inflation: how 2D weights become 3D ones.
        settings: training settings that differ from SETTINGS.
        first: what Omnia-Net starts from where it is trained first, as `weights`.
        sizes: training cases it is run with.
        fine: the stem keeps the full resolution, so the encoder sees everything twice as large.
    """

    name: str
    config: str
    weights: str
    inflation: str = "center"
    settings: tuple[tuple[str, Any], ...] = ()
    first: str = "FILE"
    sizes: tuple[int, ...] = SIZES
    fine: bool = False


SLICES = (Arm("random", "omnia", "random"), Arm("ImageNet", "omnia", "FILE"))
VOLUMES = (
    Arm("random", "dx", "random"),
    Arm("center", "dx", "FILE"),
    Arm("Omnia-Net first", "dx", "omnia"),
    Arm("center, encoder at 0.2 x the rate", "dx", "FILE", settings=(("encoder_learning_rate", 0.2),), sizes=(8,)),
    Arm("Omnia-Net first, at 0.3 x the rate", "dx", "omnia", settings=(("learning_rate", 6e-4),), sizes=(8,)),
    Arm("random, as long as Omnia-Net first", "dx", "random", settings=(("epochs", 8),), sizes=(8,)),
    Arm("random Omnia-Net first", "dx", "omnia", first="random", sizes=(8,)),
    Arm("2D twin first (the default)", "dx", "FILE", settings=(("slices_first", True),)),
    Arm("random 2D twin first", "dx", "random", settings=(("slices_first", True),), sizes=(8,)),
    Arm("average", "dx", "FILE", "average"),
    Arm("replicate", "dx", "FILE", "replicate"),
    Arm("acs", "dx", "FILE", "acs"),
    Arm("random, stem at stride 1", "dx", "random", sizes=(8,), fine=True),
    Arm("center, stem at stride 1", "dx", "FILE", sizes=(8,), fine=True),
)
BATCH = {"omnia": 4, "dx": 2}  # what is planned for volumes, and what slices of 192 x 192 leave time for on two cores
OMNIA_FIRST = {"epochs": 12, "batch": 12}  # a third of the time that DX-Net then takes


def slices_dataset(data: Path, folder: Path) -> tuple[list[list[str]], list[str]]:
    """Write a dataset of slices; return the training cases per seed, most useful first, and the test cases."""
    source = data / "Dataset046_SunnybrookSlices"
    content = read_json(source / "dataset.json")
    patients = sorted(set(content["groups"].values()))
    by_patient = {p: sorted(c for c, q in content["groups"].items() if q == p) for p in patients}
    # Every second patient is kept for testing, so that both halves hold all four groups of patients.
    training, test = patients[::2], [case for p in patients[1::2] for case in by_patient[p]]
    test = [test[i] for i in np.linspace(0, len(test) - 1, TEST_SLICES).astype(int)]
    orders = []
    for seed in SEEDS:
        random = np.random.default_rng(seed)
        queues = [list(random.permutation(by_patient[p])) for p in training]
        # One slice of each patient in turn.
        orders.append([str(queue[i]) for i in range(max(map(len, queues))) for queue in queues if i < len(queue)])
    cases = {*test, *(case for order in orders for case in order)}
    files = {
        c: {"images": [source / "imagesTr" / f"{c}_0000.png"], "label": source / "labelsTr" / f"{c}.png"} for c in cases
    }
    _write(folder, {key: value for key, value in content.items() if key != "groups"}, files)
    return orders, test


def volumes_dataset(data: Path, folder: Path) -> tuple[list[list[str]], list[str]]:
    """Write a dataset of volumes; return the training cases per seed and the test cases."""
    source = data / "Dataset004_Hippocampus"
    names = {
        part: sorted(file.name.removesuffix(".nii.gz") for file in (source / f"labels{part}").iterdir())
        for part in ("Tr", "Ts")
    }
    files = {
        case: {
            "images": [source / f"images{part}" / f"{case}_0000.nii.gz"],
            "label": source / f"labels{part}" / f"{case}.nii.gz",
        }
        for part, cases in names.items()
        for case in cases
    }
    _write(folder, read_json(source / "dataset.json"), files)
    orders = [[str(c) for c in np.random.default_rng(seed).permutation(names["Tr"])] for seed in SEEDS]
    return orders, names["Ts"]


def _write(folder: Path, content: dict[str, Any], files: dict[str, Any]) -> None:
    described = {
        case: {"images": [str(path.resolve()) for path in entry["images"]], "label": str(entry["label"].resolve())}
        for case, entry in files.items()
    }
    write_json(folder / "dataset.json", {**content, "numTraining": len(files), "dataset": described})


def run(raw: Path, work: Path, arm: Arm, seed: int, weights: str) -> dict[str, Any]:
    """Train one arm with one seed on the only fold of `raw`, and return its record."""
    options = {
        "encoder": ENCODER,
        "inflation": arm.inflation,  # type: ignore[arg-type]
        "batch_size": BATCH[arm.config],
        "patch_size": (192, 192) if arm.config == "omnia" else None,
        "trial": False,
    }
    autocrossdim.plan_and_preprocess(raw, work=work, **options)
    plan_file = Workspace.of(raw.name, work).plan
    plan = read_json(plan_file)
    plan["configurations"]["omnia"]["batch_size"] = OMNIA_FIRST["batch"] if arm.weights == "omnia" else BATCH["omnia"]
    if arm.fine:
        plan["configurations"]["dx"]["strides"][0] = [1, 1, 1]
    write_json(plan_file, plan)
    if arm.weights == "omnia":
        first = {**SETTINGS, "epochs": OMNIA_FIRST["epochs"], "seed": seed}
        autocrossdim.train(
            raw, work=work, config="omnia", fold=[0], weights=arm.first.replace("FILE", weights), set=first
        )
    start = arm.weights.replace("FILE", weights)
    autocrossdim.train(
        raw, work=work, config=arm.config, fold=[0], weights=start, set={**SETTINGS, **dict(arm.settings), "seed": seed}
    )
    folder = Workspace.of(raw.name, work).fold(arm.config, 0)
    history = [json.loads(line) for line in folder.history.read_text().splitlines()]
    mean = read_json(folder.validation / "summary.json")["foreground_mean"]
    return {
        "dataset": raw.name,
        "arm": arm.name,
        "seed": seed,
        "Dice": mean["Dice"],
        "HD95": mean["HD95"],
        "steps": history[-1]["step"],
        "seconds": sum(line["seconds"] for line in history),
    }


def table(records: list[dict[str, Any]]) -> str:
    """Return a Markdown table: mean Dice over the seeds, and each seed's."""
    rows = defaultdict(list)
    for record in records:
        rows[record["dataset"], record["arm"], record["cases"]].append(record)
    lines = ["| dataset | start | cases | Dice, mean of seeds | each seed | HD95 |", "|---|---|---|---|---|---|"]
    for (dataset, arm, cases), found in rows.items():
        scores = [record["Dice"] for record in sorted(found, key=lambda record: record["seed"])]
        each = ", ".join(f"{score:.3f}" for score in scores)
        distance = np.mean([record["HD95"] for record in found])
        lines.append(f"| {dataset} | {arm} | {cases} | {np.mean(scores):.3f} | {each} | {distance:.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--only", choices=("slices", "volumes"))
    parser.add_argument("--cases", type=int, choices=SIZES, action="append", help="with so many cases only")
    parser.add_argument("--arm", action="append", help="only these, by their names in the table")
    arguments = parser.parse_args()
    runs = Runs(arguments.work / "transfer.jsonl")
    jobs = [
        ("Dataset046_SunnybrookSlices", slices_dataset, SLICES),
        ("Dataset004_Hippocampus", volumes_dataset, VOLUMES),
    ]
    for name, make, arms in jobs:
        if arguments.only and arguments.only not in make.__name__:
            continue
        for size, arm, (place, seed) in itertools.product(arguments.cases or SIZES, arms, enumerate(SEEDS)):
            unwanted = size not in arm.sizes or (arguments.arm and arm.name not in arguments.arm)
            if unwanted or runs.has({"dataset": name, "arm": arm.name, "cases": size, "seed": seed}):
                continue
            raw = arguments.work / f"raw_{size}_{seed}" / name
            orders, test = make(arguments.data, raw)
            write_json(raw / "splits_final.json", [{"train": sorted(orders[place][:size]), "val": sorted(test)}])
            work = arguments.work / f"{size}_{arm.name.replace(' ', '_')}_{seed}"
            runs.add({"cases": size, **run(raw, work, arm, seed, str(arguments.weights))})
    print(table(runs.read()))


if __name__ == "__main__":
    main()
