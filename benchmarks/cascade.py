"""Does the cascade help where only distant context tells structures apart, and does it harm elsewhere?

    python benchmarks/cascade.py --work FOLDER --seed 1
    python benchmarks/cascade.py --work FOLDER --data Dataset004_Hippocampus --weights WEIGHTS --epochs 5

Two equal nodules are labelled by their distance to a sphere that no patch of `dx` contains together with one of them
(`near_and_far` in autocrossdim/data/phantoms.py). In training, their masks are perturbed less than by default, unless
`--default-stage` is given. With `--data`, 16 cases of Hippocampus are used instead, with patches small enough for the
plan to contain a cascade, and all settings of the cascade have their defaults. `dx`, `dx_lowres` and `dx_cascade` are
trained in two folds and compared on held-out cases, and `find_best` chooses between them and their pairs. Finished
folds are skipped, so the script can be interrupted.
"""

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import train_cases

import autocrossdim
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, near_and_far, write_dataset
from autocrossdim.records.summary import Summary
from autocrossdim.selection.choose import compare
from autocrossdim.system.files import read_json, write_json

LABELS = {"background": 0, "near": 1, "far": 2}
CASES = 24
EPOCHS = {"dx": 40, "dx_lowres": 20, "dx_cascade": 20}  # `dx` alone is trained for as long as the two stages together
PLAN: dict[str, Any] = {"encoder": "test_efficientnet", "patch_size": (8, 16, 16), "batch_size": 4}
# Nodules of 4 voxels vanish when a mask is eroded by up to 8 voxels, and each is the only component of its mask.
STAGE = {"stage_morphology": 0.05, "stage_component": 0.05}
SETTINGS = {"steps_per_epoch": 25, "slices_first": False, "workers": 0, "patience": 0}

REAL_CASES = 16
REAL_PLAN: dict[str, Any] = {"encoder": "tf_efficientnetv2_b0", "patch_size": (16, 24, 16), "batch_size": 4}


def prepare(raw: Path, seed: int) -> None:
    """Write the dataset with two folds."""
    write_dataset(raw, near_and_far, LABELS, ISOTROPIC_SPACING, training=CASES, test=0, seed=seed)
    # The other axes tell nothing, and prediction takes a quarter of the time without their mirrorings.
    description = {**read_json(raw / "dataset.json"), "mirror_axes": ["top-bottom"]}
    write_json(raw / "dataset.json", description)
    write_folds(raw, [f"case_{number:02d}" for number in range(CASES)])


def prepare_real(raw: Path, source: Path) -> None:
    """Write a dataset of some cases of another one, with two folds."""
    names, _ = train_cases.select(source, REAL_CASES, seed=0)
    train_cases.write(source, names, [], raw.parents[1])
    write_folds(raw, names)


def write_folds(raw: Path, names: list[str]) -> None:
    """Let each half of the cases validate the networks trained on the other half."""
    halves = names[::2], names[1::2]
    write_json(raw / "splits_final.json", [{"train": a, "val": b} for a, b in (halves, halves[::-1])])


def main() -> None:
    """Train, compare and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="Directory of Hippocampus, to use instead of generated volumes.")
    parser.add_argument("--weights", default="random", help="Starting weights of all configurations.")
    parser.add_argument("--epochs", type=int, help="Epochs of 25 steps of each configuration.")
    parser.add_argument("--seed", type=int, default=0, help="Seed of the generated volumes and of training.")
    parser.add_argument("--default-stage", action="store_true", help="Perturb masks as by default, as with --data.")
    arguments = parser.parse_args()
    name = "Dataset903_NearFar" if arguments.data is None else arguments.data.name
    raw, work = arguments.work / "raw" / name, arguments.work / "work"
    if not (raw / "splits_final.json").exists():
        prepare(raw, arguments.seed) if arguments.data is None else prepare_real(raw, arguments.data)
    options = PLAN if arguments.data is None else REAL_PLAN
    gentle = arguments.data is None and not arguments.default_stage
    plan = autocrossdim.plan_and_preprocess(raw, work=work, trial=False, processes=1, **options)
    for name in plan.trained_by_run:
        autocrossdim.train(
            raw,
            work=work,
            config=name,
            weights=arguments.weights,
            device="cpu",
            epochs=arguments.epochs or EPOCHS[name],
            set={**SETTINGS, "seed": arguments.seed, **(STAGE if name == "dx_cascade" and gentle else {})},
        )
    best = autocrossdim.find_best(raw, work=work, device="cpu", processes=1)
    summaries = {name: Summary.read(work / raw.name / "models" / name / "summary.json") for name in EPOCHS}
    labels = [label for label in read_json(raw / "dataset.json")["labels"] if label != "background"]
    rows = []
    columns = ["configuration", *labels, "mean (95 % interval)", "difference from dx (95 % interval)"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for name, summary in summaries.items():
        dice = [means["Dice"] for means in summary.mean.values()]
        mean, (low, high) = summary.foreground_mean["Dice"], summary.ends("Dice")
        lead = compare(summary, summaries["dx"])
        rows.append(
            {
                "name": name,
                "dice": {**dict(zip(labels, dice, strict=True)), "mean": mean, "interval": [low, high]},
                "difference": {"mean": lead.mean, "interval": [lead.low, lead.high]},
                "dice_per_case": {
                    case.file: [metrics.get("Dice") for metrics in case.metrics.values()]
                    for case in summary.metric_per_case
                },
            }
        )
        print(
            f"| `{name}` | {' | '.join(f'{value:.3f}' for value in dice)} | {mean:.3f} ({low:.3f} to {high:.3f}) | "
            f"{lead.mean:+.3f} ({lead.low:+.3f} to {lead.high:+.3f}) |"
        )
    print("\n`find_best`:", *best.reasons, sep="\n- ")
    write_json(arguments.work / "cascade.json", rows)


if __name__ == "__main__":
    main()
