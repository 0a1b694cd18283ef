"""One nnU-Net run of `train.py`: plan, preprocess, train by nnU-Net's own trainer, segment the test cases.

Run by `train.py` in nnU-Net's environment as `python train_nnunet.py JOB FOLDER`; writes `FOLDER/run.json`.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clock import Clock
from nnunetv2.experiment_planning import plan_and_preprocess_api as planning
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

STEPS_PER_EPOCH = 25
VALIDATION_STEPS = 3
"""nnU-Net validates with 50 batches after 250 steps. The same share of so short an epoch would be 5 batches; 3 cost
less and, averaged over epochs, still give a learning curve."""


def main() -> None:
    """Run the job."""
    job, folder = json.loads(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(job["threads"])
    preprocessed = preprocess(folder, job)
    device = torch.device(job["device"])
    steps = job["steps"] or steps_within(job["seconds"], preprocessed, job["config"], device)
    torch.manual_seed(job["seed"])
    np.random.seed(job["seed"])  # noqa: NPY002 (nnU-Net draws from numpy's global generator)
    trainer = stretched(preprocessed, job["config"], steps, device)
    with Clock() as training:
        trainer.run_training()
    with Clock() as prediction:
        predict(trainer, folder, device)
    configuration = trainer.configuration_manager
    curve = trainer.logger.get_value("mean_fg_dice", step=None)
    run = {
        "version": version("nnunetv2"),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if job["device"] == "cuda" else None,
        "steps": trainer.num_epochs * STEPS_PER_EPOCH,
        "batch_size": configuration.batch_size,
        "patch_size": list(configuration.patch_size),
        "training": training.record(),
        "prediction": prediction.record(),
        "curve": [[(epoch + 1) * STEPS_PER_EPOCH, round(float(dice), 4)] for epoch, dice in enumerate(curve)],
    }
    (folder / "run.json").write_text(json.dumps(run))


def preprocess(folder: Path, job: dict[str, Any]) -> Path:
    """Plan and preprocess the dataset; return the folder of the preprocessed data."""
    name = next((folder / "raw").iterdir()).name
    number = int(name[7:10])
    planning.extract_fingerprints([number], num_processes=1)
    plans = planning.plan_experiments([number])
    planning.preprocess([number], plans, configurations=(job["config"],), num_processes=(1,))
    return folder / "nnunet_preprocessed" / name


def stretched(preprocessed: Path, configuration: str, steps: int, device: torch.device) -> nnUNetTrainer:
    """Return nnU-Net's default trainer with its learning rate schedule stretched over `steps`.

    nnU-Net's schedule counts epochs, so only the number and the length of the epochs differ from its defaults.
    """
    plans = json.loads((preprocessed / "nnUNetPlans.json").read_text()) | {"continue_training": False}
    dataset = json.loads((preprocessed / "dataset.json").read_text())
    trainer = nnUNetTrainer(plans, configuration, "all", dataset, device=device)
    trainer.num_epochs = max(1, round(steps / STEPS_PER_EPOCH))
    trainer.num_iterations_per_epoch = STEPS_PER_EPOCH
    trainer.num_val_iterations_per_epoch = VALIDATION_STEPS
    return trainer


def steps_within(seconds: float, preprocessed: Path, configuration: str, device: torch.device) -> int:
    """Return the number of steps that take `seconds` of wall time, from the last of two epochs of a trial."""
    trial = stretched(preprocessed, configuration, 2 * STEPS_PER_EPOCH, device)
    trial.run_training()
    begin, end = (trial.logger.get_value(f"epoch_{which}_timestamps", step=-1) for which in ("start", "end"))
    return round(seconds / (end - begin) * STEPS_PER_EPOCH)


def predict(trainer: nnUNetTrainer, folder: Path, device: torch.device) -> None:
    """Segment `images` into `segmented` with nnU-Net's predictor and its defaults, mirroring included.

    One case after the other in this process: on one core, nnU-Net's worker processes would only cost time.
    """
    predictor = nnUNetPredictor(device=device, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(trainer.output_folder_base, ("all",), "checkpoint_final.pth")
    ending = trainer.dataset_json["file_ending"]
    images: dict[str, list[str]] = {}
    for image in sorted((folder / "images").iterdir()):
        images.setdefault(image.name.removesuffix(ending)[: -len("_0000")], []).append(str(image))
    output = folder / "segmented"
    output.mkdir()
    predictor.predict_from_files_sequential(list(images.values()), [str(output / case) for case in images])


if __name__ == "__main__":
    main()
