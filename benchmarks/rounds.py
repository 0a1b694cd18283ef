"""Do pseudo-labels of the other network, estimated again in rounds, help at equal compute?

    python benchmarks/rounds.py --data ../shared/data --work FOLDER --cases 4 --weights FILE

Hippocampus: `--cases` labelled cases chosen by the seed, 100 unlabelled scans, tested on the other training cases, all
of them as in `unlabelled.py`. The arm `rounds` trains three networks, each from the encoder's weights:

1. DX-Net on the labelled cases. It segments the unlabelled scans.
2. Omnia-Net on the labelled cases and on these segmentations. It segments the unlabelled scans, too.
3. DX-Net on the labelled cases and on Omnia-Net's segmentations.

Voxels with a probability below 0.95 have the label `ignore`. The labelled cases are listed as often as it takes to
make up half of the training cases. All cases are trained on, so there are no held-out ones to calibrate the
probabilities on. Batches have the same size in every round; planning and preprocessing are not counted. The arm
`alone` trains DX-Net and Omnia-Net on the labelled cases for as many steps as cost the same processor time as rounds 1
to 3, and 1 and 2 (`--ratios`); the seconds of both are recorded. Each run is one line of `<work>/rounds.jsonl`; runs
already there are skipped.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import SimpleITK as sitk
from clock import Clock
from paired import differences, mean_difference, scores
from runs import Runs, run_parser
from train_cases import DATASETS
from unlabelled import STEPS_PER_EPOCH, prepare

import autocrossdim
from autocrossdim.records.plan import Plan

ROUNDS = ("dx", "omnia", "dx")
CONFIDENT = 0.95
EPOCHS = {"dx": 12, "omnia": 24}  # of a round, as in `unlabelled.py`
ENDING = ".nii.gz"


def plan(raw: Path, work: Path, *, weights: Path, batch_size: int | None = None) -> Plan:
    """Plan and preprocess a dataset; return the plan."""
    encoder = weights.name.partition(".")[0]
    options: dict[str, Any] = {"encoder": encoder, "batch_size": batch_size, "trial": False, "processes": 1}
    return autocrossdim.plan_and_preprocess(raw, work=work, **options)


def train(raw: Path, work: Path, *, config: str, epochs: int, seed: int, weights: Path) -> None:
    """Train one network on all cases of a planned dataset."""
    autocrossdim.train(
        raw,
        work=work,
        config=config,
        fold="all",
        weights=str(weights),
        device="cpu",
        epochs=epochs,
        set={"steps_per_epoch": STEPS_PER_EPOCH, "seed": seed, "workers": 0},
    )


def tested(raw: Path, work: Path, folder: Path, *, config: str) -> dict[str, Any]:
    """Return the scores of a network on the test cases."""
    output = work / f"segmented_{config}"
    autocrossdim.predict(raw, folder / "images", output, work=work, config=config, device="cpu")
    return scores(autocrossdim.evaluate(output, folder / "labels", dataset=folder / "raw" / raw.name, processes=1))


def pseudo_labelled(raw: Path, work: Path, folder: Path, target: Path, *, config: str) -> dict[str, float]:
    """Write the dataset of the next round: the labelled cases, and the scans with what a network is sure of.

    Args:
        raw: Dataset that the network was trained on.
        work: Its work directory.
        folder: Folder of the run, with the labelled cases in `raw` and the unlabelled scans in `scans`.
        target: The dataset to write.
        config: Configuration of the network.

    Returns:
        Share of all voxels, and of the voxels in structures, that the network is sure of.
    """
    output = work / "scans"
    autocrossdim.predict(
        raw, folder / "scans", output, work=work, config=config, device="cpu", probabilities=True, mirroring=False
    )
    content = json.loads((folder / "raw" / raw.name / "dataset.json").read_text())
    labelled, ignore = content["dataset"], len(content["labels"])
    (target / "labels").mkdir(parents=True)
    cases, shares = {}, []
    for number, path in enumerate(sorted(output.glob(f"*{ENDING}"))):
        case = path.name.removesuffix(ENDING)
        label, sure = confident_labels(path, output / f"{case}.npz", ignore=ignore)
        sitk.WriteImage(label, target / "labels" / path.name)
        scan = folder / "scans" / f"{case}_0000{ENDING}"
        cases[case] = {"images": [str(scan.resolve())], "label": str(target / "labels" / path.name)}
        name = sorted(labelled)[number % len(labelled)]  # as many labelled cases as scans
        cases[f"{name}_{number // len(labelled)}"] = labelled[name]
        shares.append(sure)
    content |= {"dataset": cases, "numTraining": len(cases), "labels": {**content["labels"], "ignore": ignore}}
    (target / "dataset.json").write_text(json.dumps(content, indent=2))
    return dict(zip(("all", "structures"), np.nanmean(shares, axis=0).round(4).tolist(), strict=True))


def confident_labels(segmentation: Path, probabilities: Path, *, ignore: int) -> tuple[sitk.Image, tuple[float, float]]:
    """Return a segmentation in which doubtful voxels are ignored, and the share of voxels that are not.

    Args:
        segmentation: File of the segmentation.
        probabilities: File of its probabilities.
        ignore: Label of doubtful voxels.
    """
    image = sitk.ReadImage(segmentation)
    label = sitk.GetArrayFromImage(image)
    with np.load(probabilities) as stored:
        sure = stored["probabilities"].max(axis=0) >= CONFIDENT
    new = sitk.GetImageFromArray(np.where(sure, label, ignore).astype(np.uint8))
    new.CopyInformation(image)
    return new, (float(sure.mean()), float(sure[label > 0].mean()) if label.any() else np.nan)


def in_rounds(folder: Path, *, seed: int, weights: Path) -> dict[str, Any]:
    """Train the networks in rounds and return the scores and the processor seconds until the end of each."""
    raw, results, seconds = folder / "raw" / DATASETS["Hippocampus"], [], 0.0
    # More cases would allow larger batches, which take longer.
    few = plan(raw, folder / "work0", weights=weights)
    for number, config in enumerate(ROUNDS):
        work, following = folder / f"work{number}", folder / f"round{number + 1}" / raw.name
        if number > 0:
            plan(raw, work, weights=weights, batch_size=few.configuration(config).batch_size)
        with Clock() as clock:
            train(raw, work, config=config, epochs=EPOCHS[config], seed=seed, weights=weights)
        seconds += clock.cpu_seconds
        results.append({"config": config, "cpu_seconds": round(seconds, 1), **tested(raw, work, folder, config=config)})
        if number + 1 < len(ROUNDS):
            with Clock() as clock:
                results[-1]["sure"] = pseudo_labelled(raw, work, folder, following, config=config)
            seconds += clock.cpu_seconds
        raw = following
    return {"rounds": results}


def alone(folder: Path, *, seed: int, weights: Path, ratios: dict[str, float]) -> dict[str, Any]:
    """Train both networks on the labelled cases and return their scores and processor seconds."""
    raw, results = folder / "raw" / DATASETS["Hippocampus"], []
    for config, ratio in ratios.items():
        work, epochs = folder / f"work_{config}", round(EPOCHS[config] * ratio)
        plan(raw, work, weights=weights)
        with Clock() as clock:
            train(raw, work, config=config, epochs=epochs, seed=seed, weights=weights)
        scored = tested(raw, work, folder, config=config)
        results.append({"config": config, "epochs": epochs, **clock.record(), **scored})
    return {"alone": results}


def table(records: list[dict[str, Any]]) -> str:
    """Return the runs and the differences at equal compute as Markdown."""
    rows = ["| arm | network | seed | Dice | HD95 | CPU s | voxels learned from, all | in structures |"]
    rows.append("|---|---|---|---|---|---|---|---|")
    last: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for record in sorted(records, key=lambda record: (record["arm"], record["seed"])):
        for number, each in enumerate(record[record["arm"]]):
            name = f"{record['arm']}, {number + 1}" if record["arm"] == "rounds" else record["arm"]
            sure = [f"{share:.1%}" for share in each.get("sure", {}).values()] or ["", ""]
            cells = [name, each["config"], record["seed"], f"{each['dice']:.3f}", f"{each['hd95']:.2f}"]
            cells += [f"{each['cpu_seconds']:.0f}", *sure]
            rows.append(f"| {' | '.join(map(str, cells))} |")
            last.setdefault((record["arm"], each["config"]), {})[record["seed"]] = each
    rows += ["", "| compared | difference in Dice, 95 % interval |", "|---|---|"]
    for config in EPOCHS:
        one, other = (last.get((arm, config), {}) for arm in ("rounds", "alone"))
        pairs = [differences(one[seed]["per_case"], other[seed]["per_case"]) for seed in one if seed in other]
        if pairs:
            rows.append(f"| in rounds − alone: {config} | {mean_difference(pairs)} |")
    return "\n".join(rows)


def main() -> None:
    """Run what is missing, each run in a process of its own, and print the table."""
    parser = run_parser(__doc__, seeds=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=["alone", "rounds"], default=["alone", "rounds"])
    parser.add_argument(
        "--ratios",
        type=json.loads,
        default={"dx": 3.0, "omnia": 5.0},
        metavar="JSON",
        help="Steps of each network alone per step of a round.",
    )
    arguments = parser.parse_args()
    runs = Runs(arguments.work / "rounds.jsonl")
    if arguments.only:
        job = json.loads(arguments.only)
        folder = runs.folder({key: job[key] for key in ("arm", "seed", "cases")})
        shutil.rmtree(folder, ignore_errors=True)
        source = arguments.data / DATASETS["Hippocampus"]
        raw = prepare(source, folder, unlabelled=True, cases=job["cases"], seed=job["seed"], test=False)
        (raw / "imagesUn").rename(folder / "scans")
        options = {"seed": job["seed"], "weights": arguments.weights}
        if job["arm"] == "rounds":
            found = in_rounds(folder, **options)
        else:
            found = alone(folder, **options, ratios=job["ratios"])
        runs.add({**job, **found})
        return
    common = {"cases": arguments.cases, "ratios": arguments.ratios}
    runs.run_missing({"arm": arm, "seed": seed, **common} for seed in arguments.seeds for arm in arguments.arms)
    print(table(runs.read()))


if __name__ == "__main__":
    main()
