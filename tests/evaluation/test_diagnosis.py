"""Each signature is provoked by a history that has it, and absent from one that has not."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from autocrossdim.evaluation.diagnosis import history_sentences, plan_sentences
from autocrossdim.records.plan_options import PlanOptions
from trainers.settings import Settings

EPOCHS = np.arange(1, 41)
FAST = 0.2 + 1.3 * np.exp(-EPOCHS / 6)  # most of the decrease in the first epochs
EVEN = 1.5 - 0.03 * EPOCHS  # the same decrease in every epoch


def history(loss: np.ndarray, validation: np.ndarray | None = None, dice: np.ndarray | None = None) -> list[Any]:
    random = np.random.default_rng(0)
    noise = 0.01 * random.normal(size=(2, len(loss)))
    return [
        {
            "epoch": index + 1,
            "loss": float(loss[index] + noise[0, index]),
            "validation_loss": None if validation is None else float(validation[index] + noise[1, index]),
            "mean_pseudo_dice": None if dice is None else float(dice[index]),
            "learning_rate": 1e-3,
        }
        for index in range(len(loss))
    ]


def only(sentences: Sequence[str]) -> str:
    (sentence,) = sentences
    return sentence


def test_a_good_run_has_no_signature() -> None:
    assert history_sentences(history(FAST, FAST + 0.1, 1 - FAST / 2)) == []
    assert history_sentences(history(FAST)) == []  # all cases are trained on


def test_overfitting_is_named_with_its_epoch_and_remedies() -> None:
    rising = FAST + 0.02 * np.maximum(0, EPOCHS - 12)
    sentence = only(history_sentences(history(FAST, rising, np.full(40, 0.7))))
    start = re.match(r"Overfitting: since about epoch (\d+), the training loss fell by 0\.\d\d while the ", sentence)
    assert start is not None
    assert 8 <= int(start[1]) <= 18
    for remedy in ("augmentation", "drop path", "averaging", "unlabelled"):
        assert remedy in sentence


def test_a_validation_loss_that_rises_while_the_dice_improves_is_no_overfitting() -> None:
    rising = FAST + 0.02 * np.maximum(0, EPOCHS - 12)
    assert history_sentences(history(FAST, rising, 0.5 + 0.01 * EPOCHS)) == []


def test_a_collapse_while_learning_from_unlabelled_scans_is_named_even_in_a_short_run() -> None:
    lines = history(FAST[:6], dice=np.array([0.6, 0.7, 0.5, 0.7, 0.7, 0.7]))
    assert history_sentences(lines) == []
    for line in lines[2:]:
        line["collapsed_from"] = 0.7
    sentence = only(history_sentences(lines))
    assert "by epoch 3, the pseudo-Dice had fallen from 0.700 to 0.500" in sentence


@pytest.mark.parametrize(
    ("loss", "what"),
    [(EVEN, r"had reached \d\d% of its decrease halfway"), (np.full(40, 1.5), "(rose by|fell by only) 0.0.")],
)
def test_slow_convergence_is_named_with_its_remedies(loss: np.ndarray, what: str) -> None:
    sentence = only(history_sentences(history(loss, loss + 0.1)))
    assert re.match(f"Slow convergence: the training loss {what}", sentence)
    assert "--set learning_rate=..., 0.001 at its peak here" in sentence
    assert "--set lookahead=6" in sentence


def test_a_run_that_starts_from_a_trained_network_is_not_slow() -> None:
    assert history_sentences(history(np.full(40, 0.2))) == []


def test_a_few_epochs_show_nothing() -> None:
    assert history_sentences(history(np.full(9, 1.5))) == []
    assert history_sentences([]) == []


@pytest.mark.parametrize(("ratio", "slices", "named"), [(1.2, 40, True), (2.5, 40, False), (1.2, 5, False)])
def test_a_2d_network_on_isotropic_volumes(
    make_plan: Callable[..., Any], ratio: float, slices: int, named: bool
) -> None:
    plan = make_plan(dims=2, median_shape=(slices, 50, 50))
    volumes = make_plan(dims=3).configurations
    decision = plan.decision.model_copy(update={"anisotropy": ratio})
    plan = plan.model_copy(update={"configurations": {**plan.configurations, **volumes}, "decision": decision})
    assert plan_sentences(plan, "dx") == []
    sentences = plan_sentences(plan, "omnia")
    assert bool(sentences) is named
    if named:
        assert "nearly isotropic (ratio of spacings 1.2)" in only(sentences)
        assert only(sentences).endswith("autocrossdim train Dataset001_Tiny --config dx.")
    assert plan_sentences(plan.model_copy(update={"dims": 2}), "omnia") == []


def test_only_existing_settings_are_named() -> None:
    rising = EVEN[::-1]
    sentences = history_sentences(history(EVEN, rising, np.full(40, 0.7)))
    assert len(sentences) == 2
    settings = dict(re.findall(r"--set (\w+)=([\w.]*\w)?", " ".join(sentences)))
    assert len(settings) == 5
    Settings.model_validate({name: value for name, value in settings.items() if value})
    assert settings.keys() <= Settings.model_fields.keys()
    (network,) = re.findall(r"--network (\w+)", sentences[0])
    PlanOptions.model_validate({"network": network})
