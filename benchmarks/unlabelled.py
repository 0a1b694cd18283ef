"""Do scans without labels help, at equal compute?

    python benchmarks/unlabelled.py --data ../shared/data --work FOLDER [--cases 8] [--seeds 0 1 2] [--weights FILE]

DX-Net (or Omnia-Net, `--config omnia`) on Hippocampus: `--cases` labelled cases chosen by the seed, with and without
100 unlabelled scans, tested on the other training cases (which is how the method was chosen) or, with `--test`, on the
cases of imagesTs. A step with unlabelled scans costs more, so the run without them takes `--ratio` times as many steps;
the CPU seconds of both are recorded. Each run is one line of `<work>/unlabelled.jsonl`; runs already there are skipped.
"""

import argparse
import json
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from clock import Clock
from paired import mean_difference, scores
from runs import Runs

import autocrossdim
from autocrossdim.system.files import read_json, write_json

DATASET = "Dataset004_Hippocampus"
ARMS = ("without", "with")
STEPS_PER_EPOCH = 25


def prepare(data: Path, folder: Path, *, arm: str, cases: int, seed: int, test: bool) -> None:
    """Write the raw dataset of one run, and links to its test cases in `images` and `labels`."""
    source = data / DATASET
    names = sorted(file.name.removesuffix(".nii.gz") for file in (source / "labelsTr").iterdir())
    order = [str(name) for name in np.random.default_rng(seed).permutation(names)]
    training, others = order[:cases], order[cases:]
    raw = folder / "raw" / DATASET
    for part in ("imagesTr", "labelsTr", "imagesUn"):
        (raw / part).mkdir(parents=True, exist_ok=True)
    for part in ("images", "labels"):
        (folder / part).mkdir(exist_ok=True)
    for name in training:
        link(source / "imagesTr" / f"{name}_0000.nii.gz", raw / "imagesTr")
        link(source / "labelsTr" / f"{name}.nii.gz", raw / "labelsTr")
    if arm == "with":
        for file in sorted((data / "Hippocampus_unlabelled").glob("*.nii.gz")):
            link(file, raw / "imagesUn")
    if test:
        others = sorted(file.name.removesuffix(".nii.gz") for file in (source / "labelsTs").iterdir())
    suffix = "Ts" if test else "Tr"
    for name in others:
        link(source / f"images{suffix}" / f"{name}_0000.nii.gz", folder / "images")
        link(source / f"labels{suffix}" / f"{name}.nii.gz", folder / "labels")
    write_json(raw / "dataset.json", {**read_json(source / "dataset.json"), "numTraining": cases})


def link(file: Path, folder: Path) -> None:
    """Link a file into a folder."""
    (folder / file.name).unlink(missing_ok=True)
    (folder / file.name).symlink_to(file.resolve())


def measure(
    folder: Path, *, arm: str, seed: int, config: str, epochs: int, ratio: float, weights: Path | None
) -> dict[str, Any]:
    """Train one model on all cases and compare its segmentations of the test cases with their labels."""
    raw, work = folder / "raw" / DATASET, folder / "work"
    encoder = {} if weights is None else {"encoder": weights.name.partition(".")[0]}
    autocrossdim.plan_and_preprocess(raw, work=work, trial=False, processes=1, **encoder)
    with Clock() as training:
        autocrossdim.train(
            raw,
            work=work,
            config=config,
            fold="all",
            weights="random" if weights is None else str(weights),
            device="cpu",
            epochs=epochs if arm == "with" else round(ratio * epochs),
            set={
                "steps_per_epoch": STEPS_PER_EPOCH,
                "seed": seed,
                "workers": 0,
                "unlabelled": 1.0 if arm == "with" else 0.0,
            },
        )
    predictions = folder / "segmented"
    autocrossdim.predict(raw, folder / "images", predictions, work=work, config=config, device="cpu")
    summary = autocrossdim.evaluate(predictions, folder / "labels", dataset=raw, processes=1)
    return {"training": training.record(), **scores(summary)}


def table(records: list[dict[str, Any]]) -> str:
    """Return the runs as Markdown tables: each pair of runs, and the mean difference with its interval."""
    pairs: dict[tuple[Any, ...], dict[str, Any]] = defaultdict(dict)
    for record in records:
        key = ("imagesTs" if record["test"] else "other training cases", record["config"], record["cases"])
        pairs[(*key, record["epochs"], record["seed"])][record["arm"]] = record
    rows, differences = [], defaultdict(list)
    for key, arms in sorted(pairs.items()):
        if set(arms) != set(ARMS):
            continue
        without, taught = (arms[arm] for arm in ARMS)
        cells = [
            f"{without[name]:.{digits}f} | {taught[name]:.{digits}f}" for name, digits in (("dice", 3), ("hd95", 2))
        ]
        seconds = [f"{each['training']['cpu_seconds']:.0f}" for each in (without, taught)]
        rows.append(f"| {' | '.join(map(str, (*key, *cells, *seconds)))} |")
        differences[key[:-1]].append(
            [np.mean(taught["per_case"][case]) - np.mean(scores) for case, scores in without["per_case"].items()]
        )
    each = [
        "| tested on | network | cases | epochs | seed | Dice without | with | HD95 without | with | CPU s | with |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    mean = [
        "| tested on | network | cases | epochs | seeds | difference in Dice, 95 % interval |",
        "|---|---|---|---|---|---|",
    ]
    for key, per_seed in sorted(differences.items()):
        mean.append(f"| {' | '.join(map(str, key))} | {len(per_seed)} | {mean_difference(per_seed)} |")
    return "\n".join([*each, "", *mean])


def main() -> None:
    """Run what is missing, each run in a process of its own, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--config", choices=["dx", "omnia"], default="dx")
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--epochs", type=int, default=16, help="Epochs of 25 steps with unlabelled scans.")
    parser.add_argument("--ratio", type=float, default=2.0, help="Steps without unlabelled scans per step with them.")
    parser.add_argument("--weights", type=Path, help="File with encoder weights, named after the encoder.")
    parser.add_argument("--test", action="store_true", help="Test on imagesTs instead of the other training cases.")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one run, as JSON
    arguments = parser.parse_args()
    runs = Runs(arguments.work / "unlabelled.jsonl")
    if arguments.only:
        job = json.loads(arguments.only)
        folder = runs.folder(job)
        prepare(arguments.data, folder, **{key: job[key] for key in ("arm", "cases", "seed", "test")})
        found = measure(
            folder, **{key: job[key] for key in ("arm", "seed", "config", "epochs", "ratio")}, weights=arguments.weights
        )
        runs.add({**job, **found})
        return
    common = {key: getattr(arguments, key) for key in ("config", "cases", "epochs", "ratio", "test")}
    runs.run_missing({"arm": arm, "seed": seed, **common} for seed in arguments.seeds for arm in arguments.arms)
    print(table(runs.read()))


if __name__ == "__main__":
    main()
