"""Do other losses, or weight decay, reach a higher Dice with few cases?

    python benchmarks/losses.py --data ../shared/data --work FOLDER --weights FILE

Each arm is a trainer as in docs/how-to/plugins.md. It trains DX-Net, its 2D twin first, for 400 steps on 8 cases of
Hippocampus, and is tested on the other 24 training cases, by which settings may be chosen. Each run is one line of
`<work>/losses.jsonl`; runs that are already there are skipped. The tables belong to results/train.md.
"""

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from clock import Clock
from data_cases import HIPPOCAMPUS, dice, write_raw
from data_table import table
from runs import Runs
from torch import Tensor, nn
from torch.nn import functional
from train_cases import select

import autocrossdim
import trainers.trainer
from autocrossdim.networks.base import SegmentationNetwork
from trainers.learner import Loss
from trainers.loss import IGNORED, DeepSupervision, DiceCrossEntropy
from trainers.run import Run
from trainers.trainer import DefaultTrainer

CASES = 8
STEPS_PER_EPOCH, EPOCHS = 50, 8


class DiceAnd(nn.Module):
    """Dice plus a reduction of the voxelwise cross-entropy other than its mean; for exclusive labels."""

    def __init__(self, mean: Any) -> None:
        super().__init__()
        self.dice = DiceCrossEntropy(regions=False, cross_entropy_weight=0.0)
        self.mean = mean

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of logits (B, K, *patch) and classes (B, *patch)."""
        entropy = functional.cross_entropy(logits.float(), target, ignore_index=IGNORED, reduction="none")
        loss: Tensor = self.dice(logits, target) + self.mean(entropy)
        return loss


def hardest_tenth(entropy: Tensor) -> Tensor:
    """Return the mean over the tenth of the voxels with the highest cross-entropy (nnU-Net's DC_and_topk_loss)."""
    return entropy.flatten().topk(entropy.numel() // 10).values.mean()


def focal(entropy: Tensor) -> Tensor:
    """Return the focal loss with gamma 2 (Lin et al., ICCV 2017)."""
    return ((1 - (-entropy).exp()) ** 2 * entropy).mean()


class TopK(DefaultTrainer):
    """Dice plus the cross-entropy of the hardest tenth of the voxels."""

    def make_loss(self, run: Run) -> Loss:
        """As `DefaultTrainer.make_loss`."""
        return DeepSupervision(DiceAnd(hardest_tenth))


class Focal(DefaultTrainer):
    """Dice plus the focal loss."""

    def make_loss(self, run: Run) -> Loss:
        """As `DefaultTrainer.make_loss`."""
        return DeepSupervision(DiceAnd(focal))


class WeightDecay(DefaultTrainer):
    """Decoupled weight decay of 0.01, the default of AdamW."""

    def make_optimizer(self, run: Run, network: SegmentationNetwork) -> torch.optim.Optimizer:
        """As `DefaultTrainer.make_optimizer`."""
        optimizer = super().make_optimizer(run, network)
        for group in optimizer.param_groups:
            group.update(weight_decay=0.01, decoupled_weight_decay=True)
        return optimizer


ARMS = {"default": DefaultTrainer, "top-k": TopK, "focal": Focal, "weight decay": WeightDecay}


def measure(data: Path, folder: Path, weights: Path, *, arm: str, seed: int) -> dict[str, Any]:
    """Train one model, and return the Dice of each case that it was tested on, and the time of training."""
    source, raw, work = data / HIPPOCAMPUS, folder / "raw" / HIPPOCAMPUS, folder / "work"
    training, test = select(source, CASES, seed, tuning=True)
    write_raw(source, raw, training)
    encoder = weights.name.partition(".")[0]
    autocrossdim.plan_and_preprocess(raw, work=work, encoder=encoder, trial=False, processes=1)
    trainers.trainer.default = ARMS[arm]()  # what the plan's trainer is called
    settings = {"steps_per_epoch": STEPS_PER_EPOCH, "workers": 0, "seed": seed}
    with Clock() as clock:
        autocrossdim.train(raw, work=work, fold="all", weights=str(weights), device="cpu", epochs=EPOCHS, set=settings)
    return {**clock.record(), "per_case": dice(source, raw, work, test)}


def main() -> None:
    """Run what is missing and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="File with encoder weights, named after it.")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    arguments = parser.parse_args()
    runs = Runs(arguments.work / "losses.jsonl")
    for seed in arguments.seeds:
        for arm in ARMS:
            options = {"arm": arm, "seed": seed}
            if not runs.has(options):
                folder = arguments.work / f"{arm.replace(' ', '_')}_{seed}"
                runs.add({**options, **measure(arguments.data, folder, arguments.weights, **options)})
    print(table(runs.read(), [(arm, "default") for arm in ARMS if arm != "default"]))


if __name__ == "__main__":
    main()
