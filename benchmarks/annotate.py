"""Do scans chosen by `annotate_next` improve the model more than scans drawn at random?

    python benchmarks/annotate.py --data ../shared/data --work FOLDER --weights FILE [--seeds 0 1 2 3 4]

A simulation on Hippocampus with Omnia-Net. Four of the 32 labelled training cases, chosen by the seed, are annotated
initially. In each of four rounds, four of the others are added: chosen by `annotate_next` with the model that was just
trained, or at random. After every round, a model is trained from the same starting weights for the same number of
steps on all cases annotated so far, and tested on the 16 cases of imagesTs. Both arms share the first round of a seed.
Each round is one line of `<work>/annotate.jsonl`; rounds already there are skipped, so that an interrupted run resumes.
"""

import argparse
import json
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
from clock import Clock
from paired import differences, mean_difference, scores
from runs import Runs

import autocrossdim
from autocrossdim.system.files import read_json, write_json

DATASET = "Dataset004_Hippocampus"
ARMS = ("random", "stratified")
START, PER_ROUND, ROUNDS = 4, 4, 4
STEPS_PER_EPOCH = 25


def first_cases(data: Path, seed: int) -> list[str]:
    """Return the cases that are annotated initially."""
    names = sorted(file.name.removesuffix(".nii.gz") for file in (data / DATASET / "labelsTr").iterdir())
    return sorted(str(name) for name in np.random.default_rng(seed).permutation(names)[:START])


def prepare(data: Path, folder: Path, annotated: list[str]) -> Path:
    """Write the raw dataset of one round: annotated cases, and all others as unlabelled scans."""
    source, raw = data / DATASET, folder / "raw" / DATASET
    for part in ("imagesTr", "labelsTr", "imagesUn"):
        (raw / part).mkdir(parents=True)
    for label in sorted((source / "labelsTr").iterdir()):
        name = label.name.removesuffix(".nii.gz")
        image = source / "imagesTr" / f"{name}_0000.nii.gz"
        part = "Tr" if name in annotated else "Un"
        (raw / f"images{part}" / image.name).symlink_to(image.resolve())
        if part == "Tr":
            (raw / "labelsTr" / label.name).symlink_to(label.resolve())
    write_json(raw / "dataset.json", {**read_json(source / "dataset.json"), "numTraining": len(annotated)})
    return raw


def measure(
    data: Path, folder: Path, annotated: list[str], *, arms: list[str], seed: int, epochs: int, weights: Path
) -> dict[str, Any]:
    """Train on the annotated cases, test, and choose the next cases by each method."""
    raw, work = prepare(data, folder, annotated), folder / "work"
    encoder = weights.name.partition(".")[0]
    autocrossdim.plan_and_preprocess(raw, work=work, planner="omnia", encoder=encoder, trial=False, processes=1)
    with Clock() as training:
        autocrossdim.train(
            raw,
            work=work,
            fold="all",
            weights=str(weights),
            device="cpu",
            epochs=epochs,
            set={"steps_per_epoch": STEPS_PER_EPOCH, "seed": seed, "workers": 0},
        )
    test = data / DATASET
    segmented = folder / "segmented"
    with Clock() as rest:
        autocrossdim.predict(raw, test / "imagesTs", segmented, work=work, mirroring=False, device="cpu")
        summary = autocrossdim.evaluate(segmented, test / "labelsTs", dataset=raw, processes=1)
        chosen = {
            arm: autocrossdim.annotate_next(
                raw, number=PER_ROUND, method=arm, seed=seed, work=work, mirroring=False, device="cpu"
            )
            for arm in arms
        }
    return {
        "training": training.record(),
        "rest": rest.record(),
        **scores(summary),
        "next": {arm: [each.case for each in found.suggestions] for arm, found in chosen.items()},
    }


def table(records: list[dict[str, Any]]) -> str:
    """Return the curves of both arms as Markdown tables: each seed, and the mean difference with its interval."""
    runs = {(r["epochs"], r["seed"], r["round"], r["arm"]): r for r in records}
    rows, found = [], defaultdict(list)
    for epochs, seed, number in sorted({key[:3] for key in runs}):
        if number == 0:
            rows.append(f"| {epochs} | {seed} | {START} | {runs[epochs, seed, 0, 'both']['dice']:.3f} | | |")
            continue
        pair = [runs.get((epochs, seed, number, arm)) for arm in ARMS]
        if None in pair:
            continue
        random, chosen = (each for each in pair if each is not None)
        cases = START + number * PER_ROUND
        common = len(set(random["annotated"]) & set(chosen["annotated"])) - START
        rows.append(f"| {epochs} | {seed} | {cases} | {random['dice']:.3f} | {chosen['dice']:.3f} | {common} |")
        found[epochs, cases].append(differences(chosen["per_case"], random["per_case"]))
    each = [
        "| epochs | seed | annotated cases | Dice, random | Dice, stratified | chosen by both |",
        "|---|---|---|---|---|---|",
        *rows,
    ]
    mean = ["| epochs | annotated cases | seeds | difference in Dice, 95 % interval |", "|---|---|---|---|"]
    for (epochs, cases), per_seed in sorted(found.items()):
        mean.append(f"| {epochs} | {cases} | {len(per_seed)} | {mean_difference(per_seed)} |")
    return "\n".join([*each, "", *mean])


def annotated_in(
    records: list[dict[str, Any]], data: Path, *, arm: str, number: int, seed: int, epochs: int
) -> list[str]:
    """Return the cases that are annotated in a round, from what the round before it chose."""
    if number == 0:
        return first_cases(data, seed)
    previous = "both" if number == 1 else arm
    key = {"arm": previous, "seed": seed, "round": number - 1, "epochs": epochs}
    (before,) = (record for record in records if {**record, **key} == record)
    return sorted([*before["annotated"], *before["next"][arm]])


def main() -> None:
    """Run the rounds that are missing, each in a process of its own, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="File with encoder weights, named after it.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--epochs", type=int, default=48, help=f"Epochs of {STEPS_PER_EPOCH} steps in every round.")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one round, as JSON
    arguments = parser.parse_args()
    runs = Runs(arguments.work / "annotate.jsonl")
    if arguments.only:
        job = json.loads(arguments.only)
        folder = runs.folder(job)
        shutil.rmtree(folder, ignore_errors=True)
        annotated = annotated_in(
            runs.read(), arguments.data, arm=job["arm"], number=job["round"], seed=job["seed"], epochs=job["epochs"]
        )
        found = measure(
            arguments.data,
            folder,
            annotated,
            arms=list(ARMS) if job["arm"] == "both" else [job["arm"]],
            seed=job["seed"],
            epochs=job["epochs"],
            weights=arguments.weights,
        )
        runs.add({**job, "annotated": annotated, **found})
        shutil.rmtree(folder)
        return
    # One after another: what a round annotates follows from the one before it.
    runs.run_missing(
        {"arm": arm, "seed": seed, "round": number, "epochs": arguments.epochs}
        for seed in arguments.seeds
        for number in range(arguments.rounds + 1)
        for arm in (ARMS if number else ("both",))
    )
    print(table(runs.read()))


if __name__ == "__main__":
    main()
