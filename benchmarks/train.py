r"""Accuracy after a training budget, beside nnU-Net 2.8.1 with the same cases.

    python benchmarks/train.py --data ../shared/data --work FOLDER --nnunet PYTHON --weights FILE \
        --dataset Hippocampus --cases 8 32 --config 3d_fullres dx --steps 1600

runs every combination of the options. The configuration decides the tool: `2d` and `3d_fullres` are nnU-Net's (in the
environment of PYTHON), `omnia` and `dx` are ours (with encoder weights from FILE). Each tool plans by itself, trains
one model on all training cases with its own trainer, its learning rate schedule stretched over the budget, and segments
the test cases with mirroring. Planning and preprocessing are not counted; the training of our 2D twin is.

A budget is a number of steps (`--steps`) or of seconds (`--seconds`). Each run is a process with `--threads` threads;
choose its cores with `taskset`. It becomes one file in `benchmarks/results/train`, with the metrics of every test case.
Existing runs are skipped. To choose a setting, add `--tuning`, which tests on other cases than those of the results.
`python benchmarks/train_table.py` turns the files into tables.
"""

import argparse
import itertools
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from train_cases import DATASETS, SEEDS, groups_of, select, write

RESULTS = Path(__file__).parent / "results" / "train"
TOOLS = {"2d": "nnU-Net", "3d_fullres": "nnU-Net", "omnia": "autocrossdim", "dx": "autocrossdim"}
METRICS = ("Dice", "HD95", "ASSD")


@dataclass(frozen=True)
class Job:
    """One run.

    Attributes:
        dataset: Short name of the dataset.
        cases: Number of training cases.
        config: Configuration; it decides the tool.
        steps: Budget in optimiser steps, or None.
        seconds: Budget in seconds of wall time, or None.
        seed: Number of the choice of cases, and seed of the run.
        threads: Threads for computing.
        variant: Name of a run of ours with other options than the defaults.
        encoder: Our encoder.
        weights: Our encoder's weights: `random` or the name of the file.
        set: Our training settings that differ from the defaults.
        tuning: Whether a setting is to be chosen by the result, see `select`.
        device: Device that computes, `cpu` or `cuda`.
        workers: Processes that augment; None: one less than threads for ours, one for nnU-Net.
        folds: Whether each fold of our cross-validation is trained for the budget, and all of them segment together.
    """

    dataset: str
    cases: int
    config: str
    steps: int | None
    seconds: float | None
    seed: int
    threads: int
    variant: str | None = None
    encoder: str | None = None
    weights: str | None = None
    set: dict[str, Any] | None = None
    tuning: bool = False
    device: str = "cpu"
    workers: int | None = None
    folds: bool = False

    @property
    def name(self) -> str:
        """Name of its folder and of its result."""
        budget = f"{self.steps}steps" if self.steps else f"{self.seconds:g}s"
        tuning = "tuning" if self.tuning else None
        device = None if self.device == "cpu" else self.device
        folds = "folds" if self.folds else None
        parts = [self.dataset, f"{self.cases}cases", self.config, self.variant, folds, tuning, device, budget]
        parts.append(f"seed{self.seed}")
        return "_".join(part for part in parts if part)


def jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    """Yield every combination of the options."""
    budgets = [(steps, None) for steps in arguments.steps] + [(None, seconds) for seconds in arguments.seconds]
    for dataset, cases, (steps, seconds), seed, config in itertools.product(
        arguments.dataset, arguments.cases, budgets, arguments.seeds, arguments.config
    ):
        ours: dict[str, Any] = {}
        if TOOLS[config] == "autocrossdim":
            settings = {name: json.loads(value) for name, value in (item.split("=", 1) for item in arguments.set)}
            ours = {"variant": arguments.variant, "encoder": arguments.encoder, "set": settings}
            ours["weights"] = Path(arguments.weights).name
            ours["folds"] = arguments.folds
        usual: dict[str, Any] = {key: getattr(arguments, key) for key in ("threads", "tuning", "device", "workers")}
        yield Job(dataset, cases, config, steps, seconds, seed, **usual, **ours)


def exists(job: Job, result: Path) -> bool:
    """Tell whether the job was run before.

    Raises:
        SystemExit: The existing run of that name had other options.
    """
    if not result.exists():
        return False
    if Job(**json.loads(result.read_text())["job"]) != job:
        raise SystemExit(f"{result} was run with other options. Name this run with --variant, or delete the file.")
    return True


def run(job: Job, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run one job in an empty folder and return its record."""
    source = arguments.data / DATASETS[job.dataset]
    training, test = select(source, job.cases, job.seed, tuning=job.tuning)
    shutil.rmtree(folder, ignore_errors=True)
    write(source, training, test, folder)
    tool = TOOLS[job.config]
    script, python = ("train_nnunet.py", arguments.nnunet) if tool == "nnU-Net" else ("train_ours.py", sys.executable)
    options = asdict(job) | ({"weights": arguments.weights} if job.weights else {})
    command = [str(python), str(Path(__file__).with_name(script)), json.dumps(options), str(folder)]
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run(command, stdout=log, stderr=log, env=environment(job, folder))
    if done.returncode:
        raise SystemExit(f"{job.name} failed. The end of {folder / 'log.txt'} says why.")
    return {
        "job": asdict(job),
        "tool": tool,
        **json.loads((folder / "run.json").read_text()),
        "processor": processor(),
        "training_cases": training,
        "groups": groups_of(source, test),
        **score(folder, source.name),
    }


def environment(job: Job, folder: Path) -> dict[str, str]:
    """Return the environment variables of a run: threads, and nnU-Net's folders and processes."""
    return os.environ | {
        "OMP_NUM_THREADS": str(job.threads),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        "nnUNet_raw": str(folder / "raw"),
        "nnUNet_preprocessed": str(folder / "nnunet_preprocessed"),
        "nnUNet_results": str(folder / "nnunet_results"),
        # On one core, one worker augments; none at all is meant for debugging only.
        "nnUNet_n_proc_DA": str(job.workers or 1),
        "nnUNet_def_n_proc": "1",
    }


def score(folder: Path, dataset: str) -> dict[str, Any]:
    """Compare `segmented` with `labels`; return label names, unit of distances, and metrics per case and label."""
    import autocrossdim

    summary = autocrossdim.evaluate(folder / "segmented", folder / "labels", dataset=folder / "raw" / dataset)
    ending = json.loads((folder / "raw" / dataset / "dataset.json").read_text())["file_ending"]
    metrics = {
        case.file.removesuffix(ending): {
            label: {metric: _rounded(values[metric]) for metric in METRICS} for label, values in case.metrics.items()
        }
        for case in summary.metric_per_case
    }
    return {"labels": summary.labels, "unit": summary.unit, "metrics": metrics}


def _rounded(value: float) -> float | None:
    return None if value != value else round(value, 5)  # NaN (no such label, none found) is not JSON


def processor() -> str:
    """Return the model of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the datasets")
    parser.add_argument("--work", type=Path, required=True, help="folder for what the runs write")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for the results (default: %(default)s)")
    parser.add_argument("--nnunet", metavar="PYTHON", help="Python of an environment with nnU-Net")
    parser.add_argument("--encoder", default="tf_efficientnetv2_b0")
    parser.add_argument("--weights", default="random", help="file with encoder weights, or `random`")
    parser.add_argument("--variant", help="name of a run of ours with other options")
    parser.add_argument("--folds", action="store_true", help="train every fold for the budget and combine them (ours)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="training setting of ours")
    parser.add_argument("--dataset", nargs="+", choices=DATASETS, required=True)
    parser.add_argument("--cases", nargs="+", type=int, required=True, help="training cases")
    parser.add_argument("--config", nargs="+", choices=TOOLS, required=True)
    parser.add_argument("--steps", nargs="+", type=int, default=[], help="budgets in optimiser steps")
    parser.add_argument("--tuning", action="store_true", help="test on cases by which settings may be chosen")
    parser.add_argument("--seconds", nargs="+", type=float, default=[], help="budgets in seconds of wall time")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0], choices=SEEDS)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--workers", type=int, help="processes that augment (default: ours threads - 1, nnU-Net 1)")
    arguments = parser.parse_args()
    if not arguments.steps and not arguments.seconds:
        parser.error("Give a budget: --steps or --seconds.")
    if arguments.nnunet is None and any(TOOLS[config] == "nnU-Net" for config in arguments.config):
        parser.error("--config 2d and 3d_fullres need --nnunet PYTHON.")
    arguments.results.mkdir(parents=True, exist_ok=True)
    for job in jobs(arguments):
        result = arguments.results / f"{job.name}.json"
        if exists(job, result):
            continue
        print(job.name, flush=True)
        record = run(job, arguments, (arguments.work / job.name).resolve())
        partial = result.with_suffix(".partial")
        partial.write_text(json.dumps(record, indent=1) + "\n")
        partial.rename(result)


if __name__ == "__main__":
    main()
