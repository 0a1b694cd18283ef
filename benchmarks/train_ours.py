"""One autocrossdim run of `train.py`: plan, preprocess, train, segment the test cases.

Run by `train.py` as `python train_ours.py JOB FOLDER`; writes `FOLDER/run.json`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from clock import Clock

import autocrossdim

STEPS_PER_EPOCH = 50
UNLIMITED_EPOCHS = 1000  # more than any budget of seconds allows, so that the time ends the schedule


def main() -> None:
    """Run the job."""
    job, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(job["threads"])
    dataset, work = next((folder / "raw").iterdir()), folder / "work"
    plan = autocrossdim.plan_and_preprocess(dataset, work=work, encoder=job["encoder"], trial=False)
    with Clock() as training:
        train(dataset, work, job)
    with Clock() as prediction:
        autocrossdim.predict(
            dataset, folder / "images", folder / "segmented", work=work, config=job["config"], device=job["device"]
        )
    configuration = plan.configurations[job["config"]]
    fold = 0 if job["folds"] else "all"
    history = work / dataset.name / "models" / job["config"] / f"fold_{fold}" / "history.jsonl"
    epochs = [json.loads(line) for line in history.read_text().splitlines()]
    run = {
        "version": f"{autocrossdim.__version__} {commit()}",
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if job["device"] == "cuda" else None,
        "steps": epochs[-1]["step"],
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
        "training": training.record(),
        "prediction": prediction.record(),
        "curve": [[epoch["step"], epoch["mean_pseudo_dice"]] for epoch in epochs],
    }
    (folder / "run.json").write_text(json.dumps(run))


def train(dataset: Path, work: Path, job: dict[str, Any]) -> None:
    """Train one model on all cases, or each fold, its schedule stretched over the job's steps or seconds.

    The steps are those of the configuration itself; DX-Net's 2D twin is trained before them, and its time counts.
    Batches are loaded in the training process: one core leaves no room for workers.
    """
    workers = job["threads"] - 1 if job["workers"] is None else job["workers"]
    autocrossdim.train(
        dataset,
        work=work,
        config=job["config"],
        fold=() if job["folds"] else "all",
        epochs=max(1, round(job["steps"] / STEPS_PER_EPOCH)) if job["steps"] else UNLIMITED_EPOCHS,
        max_time=job["seconds"],
        weights=job["weights"],
        device=job["device"],
        set={"steps_per_epoch": STEPS_PER_EPOCH, "seed": job["seed"], "workers": workers, **job["set"]},
    )


def commit() -> str:
    """Return the commit of the checkout, marked if files differ from it."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
