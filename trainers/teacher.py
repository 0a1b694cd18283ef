"""Learning from scans without labels: the running average of the weights teaches the network that is trained.

The average segments an unlabelled patch. The network has to predict the same for the patch with changed intensities and
with a box of another patch pasted into it, wherever the average is confident. This is a mean teacher
(Tarvainen and Valpola 2017) with the confidence threshold of FixMatch (Sohn et al. 2020) and CutMix (Yun et al. 2019),
the elements that UniMatch (Yang et al. 2023) found to matter in segmentation. The teacher is part of the fold itself,
so it has never seen the fold's validation cases.
"""

import math
from types import EllipsisType

import torch
from torch import Tensor, nn

from autocrossdim.records.run_state import RunState
from trainers.loss import IGNORED

START = 0.25  # progress of the run at which the teacher begins; before, it knows less than the labelled cases show
CONFIDENCE = 0.95  # probability from which on the teacher's answer counts (FixMatch, UniMatch: 0.95)
COLLAPSE = 0.05  # fall of the validation pseudo-Dice below its last value without the teaching that ends it
DURATION = 2.0  # of a step with unlabelled scans, relative to one without; a little more on a CPU, see the docs
BOX = (0.3, 0.7)  # edge length of the pasted box relative to the patch


def is_teaching(state: RunState, progress: float) -> bool:
    """Return whether the unlabelled scans are used in the next step."""
    return progress >= START and not state.untaught


def work_done(state: RunState) -> float:
    """Return the number of steps so far; a step with unlabelled scans counts as `DURATION` steps."""
    return state.step + (DURATION - 1) * state.taught_steps


def work_per_step(state: RunState, steps: int) -> float:
    """Return the mean duration of the steps that are left, relative to one without unlabelled scans.

    Args:
        state: State of the run.
        steps: Number of steps of the whole run.
    """
    if state.untaught:
        return 1.0
    taught = steps - max(state.step, math.ceil(START * steps))
    return 1 + (DURATION - 1) * taught / max(1, steps - state.step)


@torch.no_grad()
def pseudo_labelled(teacher: nn.Module, clean: Tensor, changed: Tensor, *, regions: bool) -> tuple[Tensor, Tensor]:
    """Return unlabelled patches as the network sees them, and their pseudo-labels.

    Randomness comes from torch's generator, which the training loop seeds at every step.

    Args:
        teacher: Network in evaluation mode.
        clean: Patches as the teacher sees them, shape (B, C, *patch).
        changed: The same patches with other intensities, for the network.
        regions: Whether outputs are regions, which may overlap, rather than exclusive classes.

    Returns:
        Data (B, C, *patch), and class indices (B, *patch) or regions (B, R, *patch), -1 where the teacher is unsure.
    """
    target = pseudo_labels(teacher(clean), regions=regions)
    box = _draw_box(clean.shape[2:])
    data = changed.clone(memory_format=torch.preserve_format)
    data[box] = changed.roll(1, 0)[box]
    mixed = target.clone()
    mixed[box] = target.roll(1, 0)[box]
    return data, mixed


def pseudo_labels(logits: Tensor, *, regions: bool) -> Tensor:
    """Return the most probable classes or regions; -1 where the probability is below `CONFIDENCE`."""
    if regions:
        probabilities = logits.float().sigmoid()
        target = (probabilities > 0.5).long()
        certainty = torch.maximum(probabilities, 1 - probabilities)
    else:
        certainty, target = logits.float().softmax(dim=1).max(dim=1)
    return target.masked_fill(certainty < CONFIDENCE, IGNORED)


def has_collapsed(state: RunState, score: float | None) -> bool:
    """Return whether the validation score has fallen far below that with which the teaching began.

    Until then, that score is recorded in the state.
    """
    if score is None:
        return False
    if state.taught_from is None or not state.taught_steps:
        state.taught_from = score
        return False
    return score < state.taught_from - COLLAPSE


def _draw_box(patch: torch.Size) -> tuple[EllipsisType | slice, ...]:
    """Draw a box inside a patch, as an index (..., *axes)."""
    box: list[EllipsisType | slice] = [...]
    for n in patch:
        low, high = BOX
        size = max(1, round(n * float(torch.empty(()).uniform_(low, high))))
        start = int(torch.randint(n - size + 1, ()))
        box.append(slice(start, start + size))
    return tuple(box)
