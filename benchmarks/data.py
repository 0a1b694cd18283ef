"""How does mirroring affect labels that differ only in their position?

    python benchmarks/data.py --data ../shared/data --work FOLDER [--seeds 0 1 2]

DX-Net from random weights, the same cases, steps and seeds with every axis mirrored, with no axis mirrored, and with
the choice of the planner: on generated volumes with a left and a right organ that look alike, and on 8 cases of
Hippocampus (anterior and posterior part), tested on other cases. Each run is one line of `<work>/mirroring.jsonl`; runs
already there are skipped. The table belongs to docs/how-to/data.md.
"""

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np

import autocrossdim
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, paired_organs, write_dataset
from autocrossdim.system.files import read_json, write_json

ALL = ["left-right", "front-back", "top-bottom"]
ARMS: dict[str, list[str] | None] = {"every axis": ALL, "no axis": [], "planner": None}
SETTINGS = {"steps_per_epoch": 25, "validation_batches": 1, "slices_first": False, "workers": 1}
HIPPOCAMPUS_CASES = 8


def prepare(data: Path, dataset: str, arm: str, seed: int, folder: Path) -> Path:
    """Write the raw dataset of one run."""
    raw = folder / "raw" / dataset
    if dataset == "Dataset903_Pair":
        labels = {"background": 0, "right kidney": 1, "left kidney": 2}
        write_dataset(raw, paired_organs, labels, ISOTROPIC_SPACING, training=10, test=8, seed=seed)
    else:
        source = data / dataset
        names = sorted(file.name.removesuffix(".nii.gz") for file in (source / "labelsTr").iterdir())
        chosen = np.random.default_rng(seed).permutation(names)[:HIPPOCAMPUS_CASES]
        files = {
            str(name): {
                "images": [str((source / "imagesTr" / f"{name}_0000.nii.gz").resolve())],
                "label": str((source / "labelsTr" / f"{name}.nii.gz").resolve()),
            }
            for name in chosen
        }
        content = {**read_json(source / "dataset.json"), "dataset": files, "numTraining": len(files)}
        write_json(raw / "dataset.json", content)
        for part in ("imagesTs", "labelsTs"):
            (raw / part).unlink(missing_ok=True)
            (raw / part).symlink_to((source / part).resolve())
    axes = ARMS[arm]
    if axes is not None:
        write_json(raw / "dataset.json", {**read_json(raw / "dataset.json"), "mirror_axes": axes})
    return raw


def measure(raw: Path, work: Path, seed: int, epochs: int) -> dict[str, Any]:
    """Train one model on all cases and compare its segmentations of the test cases with their labels."""
    plan = autocrossdim.plan_and_preprocess(raw, work=work, memory=4, trial=False, processes=1)
    autocrossdim.train(
        raw, work=work, fold="all", weights="random", device="cpu", epochs=epochs, set={**SETTINGS, "seed": seed}
    )
    predictions = work / "segmented"
    autocrossdim.predict(raw, raw / "imagesTs", predictions, work=work, device="cpu")
    summary = autocrossdim.evaluate(predictions, raw / "labelsTs", dataset=raw, processes=1)
    return {
        "axes": list(plan.configuration().mirrored),
        "dice": summary.foreground_mean["Dice"],
        "per_case": [
            {key: metrics["Dice"] for key, metrics in case.metrics.items()} for case in summary.metric_per_case
        ],
    }


def table(records: list[dict[str, Any]]) -> str:
    """Return the runs as a Markdown table: the mean over seeds, and each seed."""
    rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for record in records:
        rows[record["dataset"], record["arm"]].append(record)
    lines = ["| dataset | mirrored | mean Dice | each seed |", "|---|---|---|---|"]
    for (dataset, arm), runs in sorted(rows.items()):
        scores = [run["dice"] for run in runs]
        each = ", ".join(f"{score:.3f}" for score in scores)
        lines.append(f"| {dataset[11:]} | {arm} | {np.mean(scores):.3f} | {each} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", choices=["Dataset903_Pair", "Dataset004_Hippocampus"])
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    log = arguments.work / "mirroring.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    for seed in arguments.seeds:
        for dataset in [arguments.only] if arguments.only else ["Dataset903_Pair", "Dataset004_Hippocampus"]:
            for arm in ARMS:
                job = {"dataset": dataset, "arm": arm, "seed": seed, "epochs": arguments.epochs}
                if any({**record, **job} == record for record in records):
                    continue
                folder = arguments.work / f"{dataset}_{arm.replace(' ', '_')}_{seed}_{arguments.epochs}"
                raw = prepare(arguments.data, dataset, arm, seed, folder)
                records.append({**job, **measure(raw, folder / "work", seed, arguments.epochs)})
                with log.open("a") as file:
                    file.write(json.dumps(records[-1]) + "\n")
    print(table(records))


if __name__ == "__main__":
    main()
