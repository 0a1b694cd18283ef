"""What do 2D weights bring, in 2D and in 3D? Paired runs on the real data: same cases, steps and seeds, other start.

    python benchmarks/transfer.py --data ../shared/data --weights FILE --work FOLDER [--only slices]

Every run is one line of `<work>/transfer.jsonl`; runs already there are skipped, so the job can be interrupted. The
table printed at the end is the one in docs/transfer.md. SunnybrookSlices is tested on slices of five other patients,
Hippocampus on its 16 labelled cases of `imagesTs`. An arm that starts from Omnia-Net also pays for training that.
"""

import argparse
import json
import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

from autocrossdim import api
from autocrossdim.files import read_json, write_json
from autocrossdim.plan import PlanOptions
from autocrossdim.workspace import Workspace

ENCODER = "tf_efficientnetv2_b0"
SETTINGS = {"epochs": 6, "steps_per_epoch": 25, "validation_batches": 1}
SEEDS = (0, 1, 2)
SIZES = (8, 32)
TEST_SLICES = 40


@dataclass(frozen=True)
class Arm:
    """One way to start: `weights` as on the command line, FILE standing for the weight file."""

    name: str
    config: str
    weights: str
    inflation: str = "center"
    settings: tuple[tuple[str, Any], ...] = ()


SLICES = (Arm("random", "omnia", "random"), Arm("ImageNet", "omnia", "FILE"))
VOLUMES = (
    Arm("random", "dx", "random"),
    Arm("center", "dx", "FILE"),
    Arm("Omnia-Net first", "dx", "omnia"),
    Arm("average", "dx", "FILE", "average"),
    Arm("replicate", "dx", "FILE", "replicate"),
    Arm("acs", "dx", "FILE", "acs"),
    Arm("center, encoder at 0.2 x the rate", "dx", "FILE", settings=(("encoder_learning_rate", 0.2),)),
    Arm("random, twice the steps", "dx", "random", settings=(("epochs", 12),)),
)


def slices_dataset(data: Path, folder: Path) -> tuple[list[list[str]], list[str]]:
    """Write a dataset of slices; return the training cases a seed, most useful first, and the test cases."""
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
    """Write a dataset of volumes; return the training cases a seed and the test cases."""
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


def run(raw: Path, work: Path, arm: Arm, size: int, weights: str) -> list[dict[str, Any]]:
    """Train one arm for all seeds and return a record a seed."""
    # The planned batch for volumes is 2; slices get 4, to fit the time of two cores.
    batch = 4 if arm.config == "omnia" else 2
    options = PlanOptions(encoder=ENCODER, inflation=arm.inflation, batch_size=batch)  # type: ignore[arg-type]
    api.plan_and_preprocess(raw, work, options=options)
    records = []
    for seed in SEEDS:
        if arm.weights == "omnia":
            api.train(raw, work, "omnia", [seed], weights, settings={**SETTINGS, "seed": seed})
        start = weights if arm.weights == "FILE" else arm.weights
        api.train(raw, work, arm.config, [seed], start, settings={**SETTINGS, **dict(arm.settings), "seed": seed})
        folder = Workspace.of(raw.name, work).fold(arm.config, seed)
        summary = read_json(folder.validation / "summary.json")
        history = [json.loads(line) for line in folder.history.read_text().splitlines()]
        mean = summary["foreground_mean"]
        records.append(
            {
                "dataset": raw.name,
                "arm": arm.name,
                "cases": size,
                "seed": seed,
                "Dice": mean["Dice"],
                "HD95": mean["HD95"],
                "steps": history[-1]["step"],
                "seconds": sum(line["seconds"] for line in history),
            }
        )
    return records


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
    arguments = parser.parse_args()
    log = arguments.work / "transfer.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    jobs = [
        ("Dataset046_SunnybrookSlices", slices_dataset, SLICES),
        ("Dataset004_Hippocampus", volumes_dataset, VOLUMES),
    ]
    for name, make, arms in jobs:
        if arguments.only and arguments.only not in make.__name__:
            continue
        for size in SIZES:
            raw = arguments.work / f"raw_{size}" / name
            orders, test = make(arguments.data, raw)
            splits = [{"train": sorted(order[:size]), "val": sorted(test)} for order in orders]
            write_json(raw / "splits_final.json", splits)
            for arm in arms:
                key = (name, arm.name, size)
                if any((r["dataset"], r["arm"], r["cases"]) == key for r in records):
                    continue
                new = run(
                    raw, arguments.work / f"{size}_{arm.name.replace(' ', '_')}", arm, size, str(arguments.weights)
                )
                records += new
                with log.open("a") as file:
                    file.writelines(json.dumps(record) + "\n" for record in new)
                print(table(new), flush=True)
    print(table(records))


if __name__ == "__main__":
    main()
