"""Dice against training time on the real data, beside nnU-Net 2.8.1 with the same cases and the same cores.

    python benchmarks/train.py --data ../shared/data --weights FILE --work FOLDER --nnunet PYTHON [--seconds 150 750]

Each tool plans by itself, trains one model on all given cases for so many seconds of wall time, its schedule
stretched over exactly these, and segments held-back cases with mirroring: Hippocampus in 3D on the 16 cases of
`imagesTs`, SunnybrookSlices in 2D on slices of five other patients. Ours starts from the encoder weights of FILE and
counts the training of the 2D twin; planning, preprocessing and nnU-Net's own validation are counted for neither.
Each run is a process of its own with `--threads` threads; which cores it gets is for `taskset` to say. Runs are lines
of `<work>/train.jsonl`, and those already there are skipped, so the job can be interrupted.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ENCODER = "tf_efficientnetv2_b0"
# dataset, training cases, our configuration, nnU-Net's
ROWS = [
    ("Dataset004_Hippocampus", 8, "dx", "3d_fullres"),
    ("Dataset004_Hippocampus", 32, "dx", "3d_fullres"),
    ("Dataset046_SunnybrookSlices", 32, "omnia", "2d"),
]
POLYNOMIAL = 0.9  # nnU-Net's decay


def prepare(data: Path, name: str, cases: int, seed: int, folder: Path) -> None:
    """Write `raw/<name>` with the training cases, and folders of links to held-back images and labels."""
    from transfer import SEEDS, slices_dataset, volumes_dataset

    from autocrossdim.system.files import read_json, write_json

    raw = folder / "raw" / name
    orders, test = (volumes_dataset if "Hippocampus" in name else slices_dataset)(data, raw)
    content = read_json(raw / "dataset.json")
    files = content["dataset"]
    chosen = {case: files[case] for case in sorted(orders[SEEDS.index(seed)][:cases])}
    write_json(raw / "dataset.json", {**content, "dataset": chosen, "numTraining": cases})
    for case in test:
        links = [("images", Path(image)) for image in files[case]["images"]] + [("labels", Path(files[case]["label"]))]
        for part, path in links:
            (folder / part).mkdir(parents=True, exist_ok=True)
            (folder / part / path.name).unlink(missing_ok=True)
            (folder / part / path.name).symlink_to(path)


def run_ours(job: dict[str, Any], folder: Path) -> dict[str, float]:
    """Plan, train and segment with autocrossdim."""
    import torch

    from autocrossdim import api
    from autocrossdim.records.plan import PlanOptions
    from autocrossdim.records.workspace import Workspace
    from autocrossdim.system.files import read_json

    torch.set_num_threads(job["threads"])
    raw, work = folder / "raw" / job["dataset"], folder / "ours"
    api.plan_and_preprocess(raw, work, options=PlanOptions(encoder=ENCODER, trial=False))
    begin = time.perf_counter()
    # As many workers as nnU-Net is given.
    settings = {"max_seconds": job["seconds"], "epochs": 1000, "seed": job["seed"], "workers": job["threads"] - 1}
    api.train(raw, work, job["ours"], ["all"], job["weights"], "cpu", settings=settings)
    trained = time.perf_counter()
    api.predict(raw, folder / "images", folder / "segmented_ours", work, config=[job["ours"]], device="cpu")
    history = Workspace.of(raw.name, work).fold(job["ours"], "all").history
    patch = read_json(Workspace.of(raw.name, work).plan)["configurations"][job["ours"]]
    return {
        "train": trained - begin,
        "predict": time.perf_counter() - trained,
        "steps": json.loads(history.read_text().splitlines()[-1])["step"],
        "patch": patch["patch_size"],
        "batch": patch["batch_size"],
    }


def run_nnunet(job: dict[str, Any], folder: Path) -> dict[str, float]:
    """Plan, train and segment with nnU-Net; its loop without logs, validation and checkpoints in between."""
    import numpy as np
    import torch
    from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(job["seed"])
    np.random.seed(job["seed"])  # noqa: NPY002 (what nnU-Net draws from)
    number = int(job["dataset"][7:10])
    planning.extract_fingerprints([number], num_processes=1)
    plans = planning.plan_experiments([number])
    planning.preprocess([number], plans, configurations=(job["nnunet"],), num_processes=(1,))
    # A core that trains has none to spare for workers that augment; the planner refuses to be told 0.
    os.environ.update(nnUNet_n_proc_DA=str(job["threads"] - 1))
    torch.set_num_threads(job["threads"])
    preprocessed = folder / "nnunet_preprocessed" / job["dataset"]
    trainer = nnUNetTrainer(
        json.loads((preprocessed / f"{plans}.json").read_text()) | {"continue_training": False},
        job["nnunet"],
        "all",
        json.loads((preprocessed / "dataset.json").read_text()),
        device=torch.device("cpu"),
    )
    trainer.initialize()
    trainer.on_train_start()
    trainer.network.train()
    steps, begin = 0, time.perf_counter()
    while (gone := (time.perf_counter() - begin) / job["seconds"]) < 1:
        for group in trainer.optimizer.param_groups:
            group["lr"] = trainer.initial_lr * (1 - gone) ** POLYNOMIAL
        trainer.train_step(next(trainer.dataloader_train))
        steps += 1
    trained = time.perf_counter()
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    predictor = nnUNetPredictor(use_mirroring=True, device=torch.device("cpu"), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, ("all",), "checkpoint_final.pth")
    output = folder / "segmented_nnunet"
    output.mkdir(exist_ok=True)
    images = sorted((folder / "images").iterdir())
    names = [image.name.removesuffix(trainer.dataset_json["file_ending"])[: -len("_0000")] for image in images]
    start = time.perf_counter()
    predictor.predict_from_files_sequential(
        [[str(image)] for image in images], [str(output / name) for name in names], False, True
    )
    configuration = trainer.configuration_manager
    return {
        "train": trained - begin,
        "predict": time.perf_counter() - start,
        "steps": steps,
        "patch": list(configuration.patch_size),
        "batch": configuration.batch_size,
    }


def measure(python: str, who: str, job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run one tool in a process of its own and compare what it segmented with the labels."""
    from autocrossdim import api

    environment = os.environ | {
        "OMP_NUM_THREADS": str(job["threads"]),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "nnUNet_raw": str(folder / "raw"),
        "nnUNet_preprocessed": str(folder / "nnunet_preprocessed"),
        "nnUNet_results": str(folder / "nnunet_results"),
        "nnUNet_n_proc_DA": str(job["threads"]),
        "nnUNet_def_n_proc": str(job["threads"]),
    }
    command = [python, __file__, "--row", json.dumps(job), "--who", who, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    summary = api.evaluate(folder / f"segmented_{who}", folder / "labels", folder / "raw" / job["dataset"])
    mean = summary.foreground_mean
    return {
        **job,
        "who": who,
        **result,
        "Dice": mean["Dice"],
        "HD95": mean["HD95"],
        "interval": list(summary.ends("Dice")),
    }


def table(records: list[dict[str, Any]]) -> str:
    """Return the runs as a Markdown table, ours beside nnU-Net's; of several seeds, the means, and each Dice."""
    rows: dict[tuple[str, int, float], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in sorted(records, key=lambda record: record["seed"]):
        rows[record["dataset"], record["cases"], record["seconds"]][record["who"]].append(record)
    lines = [
        "| dataset | cases | seconds | ours: Dice (95 % interval over cases) | HD95 | steps "
        "| nnU-Net: Dice (interval) | HD95 | steps |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (dataset, cases, seconds), found in sorted(rows.items()):
        told = []
        for who in ("ours", "nnunet"):
            runs = found.get(who, [])
            if not runs:
                told.append("- | - | -")
                continue
            scores = [run["Dice"] for run in runs]
            ends = [sum(run["interval"][end] for run in runs) / len(runs) for end in (0, 1)]
            each = f"; {', '.join(f'{score:.3f}' for score in scores)}" if len(runs) > 1 else ""
            distance = sum(run["HD95"] for run in runs) / len(runs)
            sizes = f"{runs[0]['steps']} x {runs[0]['batch']} of {' x '.join(map(str, runs[0]['patch']))}"
            told.append(
                f"{sum(scores) / len(scores):.3f} ({ends[0]:.3f}-{ends[1]:.3f}{each}) | {distance:.1f} | {sizes}"
            )
        lines.append(f"| {dataset[11:]} | {cases} | {seconds:g} | {' | '.join(told)} |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--nnunet", metavar="PYTHON")
    parser.add_argument("--seconds", type=float, nargs="+", default=[150, 750])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], choices=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="rows whose dataset holds this word")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--who", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        run = run_ours if arguments.who == "ours" else run_nnunet
        print("\n" + json.dumps(run(arguments.row, arguments.folder)))
        return
    arguments.work.mkdir(parents=True, exist_ok=True)
    log = arguments.work / "train.jsonl"
    records = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    pythons = {"ours": sys.executable} | ({"nnunet": arguments.nnunet} if arguments.nnunet else {})
    for seconds, seed, (name, cases, ours, theirs), who in itertools.product(
        arguments.seconds, arguments.seeds, ROWS, pythons
    ):
        job = {"dataset": name, "cases": cases, "ours": ours, "nnunet": theirs, "seconds": seconds, "seed": seed}
        job |= {"threads": arguments.threads, "weights": arguments.weights}
        done = any({**record, **job} == record and record["who"] == who for record in records)
        if done or (arguments.only and arguments.only not in name):
            continue
        folder = arguments.work / f"{name}_{cases}_{seconds:g}_{seed}_{who}"
        prepare(arguments.data, name, cases, seed, folder)
        records.append(measure(pythons[who], who, job, folder))
        with log.open("a") as file:
            file.write(json.dumps(records[-1]) + "\n")
    print(table(records))


if __name__ == "__main__":
    main()
