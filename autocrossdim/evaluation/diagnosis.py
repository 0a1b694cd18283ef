"""What can go wrong in training, recognised from its history and its plan, with the settings that may help.

Three of the signatures are those of the paper's research programme: overfitting, slow convergence, and a 2D network on
isotropic data. Their thresholds are our choice. The fourth is a collapse while learning from unlabelled scans.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autocrossdim.records.plan import Plan

EPOCHS = 10  # shorter runs are not judged
WINDOW = 5  # epochs that are averaged, because single epochs are noisy
CHANGE = 0.05  # change of a loss (Dice plus cross-entropy, both about 1 at the start) that exceeds noise
DICE = 0.01  # change of the pseudo-Dice that exceeds the noise of a few validation patches
TRAINED = 0.5  # loss below which a run has started from a trained network, such as DX-Net from its 2D counterpart
HALFWAY = 0.6  # fraction of the decrease of the loss by the middle of a run; a loss that falls evenly reaches 0.5
ISOTROPIC = 2.0  # ratio of spacings below which the choice of 3D is not a close call (see the planner's rules)
THIN = 8  # slices below which a 3D network has no context to gain


def history_sentences(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what the history of a complete run shows, one sentence per signature.

    Overfitting and slow convergence are looked for in runs of at least 10 epochs.

    Args:
        history: The lines of `history.jsonl`.
    """
    found = [_collapse(history)]
    if len(history) >= EPOCHS:
        found += [_overfitting(history), _slow_convergence(history)]
    return [sentence for sentence in found if sentence is not None]


def plan_sentences(plan: Plan, configuration: str) -> list[str]:
    """Return what is unfavourable about training a configuration on the data of a plan.

    Args:
        plan: The plan.
        configuration: Name of the configuration that is trained.
    """
    chosen, ratio = plan.configuration(configuration), plan.decision.anisotropy
    volumes = [name for name, other in plan.configurations.items() if other.dims == 3]
    if plan.dims != 3 or chosen.dims != 2 or ratio >= ISOTROPIC or chosen.median_shape[0] < THIN or not volumes:
        return []
    return [
        f"{configuration} is a 2D network, but the voxels are nearly isotropic (ratio of spacings {ratio:.2g}), so it "
        f"does not use what neighbouring slices show. Also train a 3D network: autocrossdim train {plan.dataset} "
        f"--config {volumes[0]}."
    ]


def _collapse(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Name the epoch in which the trainer stopped using unlabelled scans, because the pseudo-Dice had fallen."""
    line = next((line for line in history if "collapsed_from" in line), None)
    if line is None:
        return None
    return (
        f"Unlabelled scans: by epoch {line['epoch']}, the pseudo-Dice had fallen from {line['collapsed_from']:.3f} to "
        f"{line['mean_pseudo_dice']:.3f}, so training went back to the best weights so far and left the scans out. "
        "What may help: a smaller weight, such as --set unlabelled=0.3, or none."
    )


def _overfitting(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Recognise a validation loss that rises while the training loss falls and the pseudo-Dice does not improve."""
    training, validation, dice = (_smooth(history, name) for name in ("loss", "validation_loss", "mean_pseudo_dice"))
    if validation is None or training is None:
        return None
    lowest = int(np.argmin(validation))
    rise, fall = validation[-1] - validation[lowest], training[lowest] - training[-1]
    if rise < CHANGE or fall < CHANGE or (dice is not None and dice[-1] > dice[lowest] + DICE):
        return None
    epoch = history[lowest + WINDOW // 2].get("epoch", lowest)
    return (
        f"Overfitting: since about epoch {epoch}, the training loss fell by {fall:.2f} while the validation loss rose "
        f"by {rise:.2f}. What may help: strong augmentation (--set augmentation=strong), drop path "
        "(plan with --network paper, which uses 0.4), a wider average of the weights (--set averaging=0.1), or scans "
        "without labels (imagesUn and --set unlabelled=1)."
    )


def _slow_convergence(history: Sequence[Mapping[str, Any]]) -> str | None:
    """Recognise a training loss that has hardly fallen, or that falls no faster in the first half than in the second.

    The second half trains at the lower learning rates.
    """
    training = _smooth(history, "loss")
    if training is None or history[0]["loss"] < TRAINED:
        return None
    fall = history[0]["loss"] - training[-1]
    halfway = history[0]["loss"] - training[len(training) // 2]
    if fall >= CHANGE and halfway >= HALFWAY * fall:
        return None
    if fall < 0:
        what = f"rose by {-fall:.2f}"
    elif fall < CHANGE:
        what = f"fell by only {fall:.2f}"
    else:
        what = f"had reached {halfway / fall:.0%} of its decrease halfway"
    rate = max(line.get("learning_rate", 0.0) for line in history)
    return (
        f"Slow convergence: the training loss {what}. What may help: another learning rate (--set learning_rate=..., "
        f"{rate:.1g} at its peak here), Lookahead (--set lookahead=6), or more epochs (--epochs)."
    )


def _smooth(history: Sequence[Mapping[str, Any]], name: str) -> np.ndarray | None:
    """Return the means of a quantity over windows of epochs; None if some epochs do not have it."""
    values = [line.get(name) for line in history]
    if any(value is None for value in values):
        return None
    return np.convolve(np.array(values, float), np.full(WINDOW, 1 / WINDOW), "valid")
