"""How the folds were trained, according to their histories."""

from collections.abc import Sequence
from dataclasses import dataclass

from autocrossdim.data.splits import Split
from autocrossdim.evaluation.diagnosis import history_sentences, plan_sentences
from autocrossdim.records.history import read_history
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import Workspace


@dataclass(frozen=True)
class Fold:
    """How a fold was trained, according to its history.

    Attributes:
        name: Configuration and number of the fold.
        cases: Number of training cases.
        epochs: Epochs trained.
        steps: Optimiser steps trained; 0 if the history does not say.
        epochs_in_2d: Epochs of the 2D twin that the network started from; 0 without one.
        minutes: Training time, the twin's included.
        picture: PNG of the training curves, if there is one.
    """

    name: str
    cases: int
    epochs: int
    steps: int
    epochs_in_2d: int
    minutes: float
    picture: bytes | None


def trained_folds(workspace: Workspace, configurations: Sequence[str], splits: Sequence[Split]) -> list[Fold]:
    """Return how the trained folds were trained.

    Args:
        workspace: The workspace.
        configurations: Configurations of the model.
        splits: Folds.

    Raises:
        UserError: A history is damaged.
    """
    folds = []
    for configuration in configurations:
        for number, split in enumerate(splits):
            folder = workspace.fold(configuration, number)
            epochs, epochs_in_2d = read_history(folder.history), read_history(folder.slices.history)
            if epochs:
                folds.append(
                    Fold(
                        name=f"{configuration} fold {number}",
                        # A fold that was trained before cases were added has fewer than the split.
                        cases=epochs[-1].get("training_cases") or len(split.train),
                        epochs=len(epochs),
                        steps=epochs[-1].get("step", 0),
                        epochs_in_2d=len(epochs_in_2d),
                        minutes=sum(epoch["seconds"] for epoch in (*epochs_in_2d, *epochs)) / 60,
                        picture=folder.progress.read_bytes() if folder.progress.exists() else None,
                    )
                )
    return folds


def training_warnings(
    plan: Plan, workspace: Workspace, configurations: Sequence[str], splits: Sequence[Split]
) -> list[str]:
    """Return what may have gone wrong in training and what may help, once for all folds that show it.

    Args:
        plan: The plan.
        workspace: The workspace.
        configurations: Configurations of the model.
        splits: Folds.

    Raises:
        UserError: A history is damaged.
    """
    sentences = []
    for configuration in configurations:
        sentences += plan_sentences(plan, configuration)
        found: dict[str, list[tuple[int, str]]] = {}
        for number in range(len(splits)):
            for sentence in history_sentences(read_history(workspace.fold(configuration, number).history)):
                found.setdefault(sentence.partition(":")[0], []).append((number, sentence))
        for folds in found.values():
            first, sentence = folds[0]
            others = "" if len(folds) == 1 else f" Also seen in {len(folds) - 1} more of the {len(splits)} folds."
            sentences.append(f"{configuration} fold {first}: {sentence}{others}")
    return sentences
