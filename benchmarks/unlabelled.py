"""Do scans without labels help, at equal compute?

    python benchmarks/unlabelled.py --data ../shared/data --work FOLDER --dataset Hippocampus --cases 8 --weights FILE

DX-Net (or Omnia-Net, `--config omnia`) on a few labelled cases chosen by the seed, with and without further scans:

- Hippocampus: `--cases` training cases; 100 unlabelled scans; tested on the other training cases (which is how the
  method was chosen) or, with `--test`, on the cases of imagesTs.
- SunnybrookSlices: `--cases` slices of five patients; all other slices of these patients; tested on 40 slices of the
  other five patients.
- SunnybrookLV: the volumes of the patient that the seed numbers; those of the other two; tested on these.

A step with unlabelled scans costs more, so the run without them takes `--ratio` times as many steps; the CPU seconds of
both are recorded. Each run is one line of `<work>/unlabelled.jsonl`; runs already there are skipped.
"""

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from clock import Clock
from paired import differences, mean_difference, scores
from runs import Runs, run_parser
from train_cases import DATASETS, images_of, slices, volumes, without_one_patient, write

import autocrossdim

ARMS = ("without", "with")
STEPS_PER_EPOCH = 25


def choose(source: Path, *, cases: int, seed: int, test: bool) -> tuple[list[str], list[Path], list[str]]:
    """Return the labelled cases, the images without labels, and the test cases.

    Args:
        source: Folder of the original dataset.
        cases: Number of labelled cases.
        seed: Number of the choice.
        test: Whether to test on imagesTs, where there is one.
    """
    if source.name == DATASETS["Hippocampus"]:
        order, test_cases = volumes(source, seed)
        scans = sorted((source.parent / "Hippocampus_unlabelled").glob("*.nii.gz"))
        return sorted(order[:cases]), scans, test_cases if test else sorted(order[cases:])
    if source.name == DATASETS["SunnybrookLV"]:
        others, labelled = without_one_patient(source, seed)
        return labelled, images_of(source, others), others
    order, test_cases = slices(source, seed)
    return sorted(order[:cases]), images_of(source, order[cases:]), test_cases


def prepare(source: Path, folder: Path, *, unlabelled: bool, cases: int, seed: int, test: bool) -> Path:
    """Write the raw dataset of one run, and links to its test cases in `images` and `labels`.

    Returns:
        The raw dataset.
    """
    training, scans, test_cases = choose(source, cases=cases, seed=seed, test=test)
    for part in ("raw", "images", "labels"):
        shutil.rmtree(folder / part, ignore_errors=True)
    write(source, training, test_cases, folder)
    raw = folder / "raw" / source.name
    (raw / "imagesUn").mkdir()
    for scan in scans if unlabelled else []:
        (raw / "imagesUn" / scan.name).symlink_to(scan.resolve())
    return raw


def measure(
    raw: Path, folder: Path, *, arm: str, seed: int, config: str, epochs: int, ratio: float, weights: Path | None
) -> dict[str, Any]:
    """Train one model on all cases and compare its segmentations of the test cases with their labels."""
    work = folder / "work"
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
        key = (record["dataset"], "imagesTs" if record["test"] else "other cases", record["config"], record["cases"])
        pairs[(*key, record["epochs"], record["seed"])][record["arm"]] = record
    rows, found = [], defaultdict(list)
    for key, arms in sorted(pairs.items()):
        if set(arms) != set(ARMS):
            continue
        without, taught = (arms[arm] for arm in ARMS)
        cells = [
            f"{without[name]:.{digits}f} | {taught[name]:.{digits}f}" for name, digits in (("dice", 3), ("hd95", 2))
        ]
        seconds = [f"{each['training']['cpu_seconds']:.0f}" for each in (without, taught)]
        rows.append(f"| {' | '.join(map(str, (*key, *cells, *seconds)))} |")
        found[key[:-1]].append(differences(taught["per_case"], without["per_case"]))
    each = [
        "| dataset | tested on | network | cases | epochs | seed "
        "| Dice without | with | HD95 without | with | CPU s without | with |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]
    mean = [
        "| dataset | tested on | network | cases | epochs | seeds | difference in Dice, 95 % interval |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, per_seed in sorted(found.items()):
        mean.append(f"| {' | '.join(map(str, key))} | {len(per_seed)} | {mean_difference(per_seed)} |")
    return "\n".join([*each, "", *mean])


def main() -> None:
    """Run what is missing, each run in a process of its own, and print the table."""
    parser = run_parser(__doc__, seeds=[0, 1, 2])
    parser.add_argument("--dataset", choices=DATASETS, default="Hippocampus")
    parser.add_argument("--config", choices=["dx", "omnia"], default="dx")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--epochs", type=int, default=16, help="Epochs of 25 steps with unlabelled scans.")
    parser.add_argument("--ratio", type=float, default=2.0, help="Steps without unlabelled scans per step with them.")
    parser.add_argument("--test", action="store_true", help="Test on imagesTs instead of the other training cases.")
    arguments = parser.parse_args()
    runs = Runs(arguments.work / "unlabelled.jsonl")
    if arguments.only:
        job = json.loads(arguments.only)
        folder = runs.folder(job)
        raw = prepare(
            arguments.data / DATASETS[job["dataset"]],
            folder,
            unlabelled=job["arm"] == "with",
            **{key: job[key] for key in ("cases", "seed", "test")},
        )
        options = {key: job[key] for key in ("arm", "seed", "config", "epochs", "ratio")}
        runs.add({**job, **measure(raw, folder, **options, weights=arguments.weights)})
        return
    common = {key: getattr(arguments, key) for key in ("dataset", "config", "cases", "epochs", "ratio", "test")}
    runs.run_missing({"arm": arm, "seed": seed, **common} for seed in arguments.seeds for arm in arguments.arms)
    print(table(runs.read()))


if __name__ == "__main__":
    main()
