import time

import pytest

from autocrossdim.records.run_state import RunState
from trainers.schedule import BETTER, Clock, last_epoch, learning_rate_factor, progress, reaches_plateau, shorten
from trainers.settings import Settings


def test_the_learning_rate_rises_and_then_decays_to_0() -> None:
    factors = [learning_rate_factor(p / 100, 0.1) for p in range(101)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] == pytest.approx(0)


def test_a_run_ends_with_its_last_step() -> None:
    settings = Settings(epochs=2, steps_per_epoch=5)
    assert progress(RunState(step=5), settings) == 0.5
    assert progress(RunState(step=10), settings) == 1


def test_a_run_ends_with_its_time_including_that_before_an_interruption() -> None:
    settings = Settings(epochs=10, max_seconds=1000)
    assert progress(RunState(step=1, seconds=900), settings) == 0.9
    assert progress(RunState(step=1, seconds=1001), settings) == 1


def test_the_last_epoch_is_known_unless_time_decides_and_earlier_after_a_plateau() -> None:
    settings = Settings(epochs=20, steps_per_epoch=5, cooldown=3)
    assert last_epoch(RunState(step=50), settings) == 20
    assert last_epoch(RunState(step=52, shortened_step=50), settings) == 13
    assert last_epoch(RunState(step=96, shortened_step=95), settings) == 20
    assert last_epoch(RunState(step=50), Settings(epochs=20, max_seconds=60)) is None


def test_the_clock_adds_to_the_time_before() -> None:
    state = RunState(seconds=100)
    clock = Clock(state)
    time.sleep(0.01)
    assert clock.tick() >= 0.01
    clock.tick()
    assert 100.01 <= state.seconds < 101


def test_processes_that_train_together_have_the_time_of_the_first_one_and_share_it_only_when_asked() -> None:
    first, second = RunState(seconds=100), RunState(seconds=90)
    Clock(first).tick()
    shared: list[float] = []

    def share(seconds: float) -> float:
        shared.append(seconds)
        return first.seconds

    clock = Clock(second, share=share)
    clock.tick()
    clock.tick()
    assert second.seconds == 90, "every step of a GPU would wait for it"
    clock.agree()
    assert second.seconds == first.seconds
    assert len(shared) == 1
    assert shared[0] > 90


def test_a_shortened_schedule_still_reaches_1_and_not_later_than_planned() -> None:
    settings = Settings(epochs=100, steps_per_epoch=10, cooldown=5)
    state = RunState(step=200)
    shorten(state, settings)
    seen = []
    while progress(state, settings) < 1:
        state.step += 1
        seen.append(progress(state, settings))
    assert state.step == 250
    assert seen == sorted(seen)
    late = RunState(step=990)
    shorten(late, settings)
    late.step = 1000
    assert progress(late, settings) == 1


def plateaus(scores: list[float | None], patience: int, state: RunState | None = None) -> list[bool]:
    """Return for each epoch whether the run is on a plateau."""
    state = state or RunState()
    found = []
    for score in scores:
        state.epoch += 1
        found.append(reaches_plateau(state, score, patience))
    return found


def test_a_plateau_is_patience_epochs_without_a_better_score() -> None:
    assert plateaus([0.1, 0.5, 0.5 + BETTER / 2, 0.4, 0.5, 0.5], patience=3) == [False] * 4 + [True] * 2


def test_a_plateau_needs_patience_and_scores() -> None:
    assert not any(plateaus([0.5] * 50, patience=0))
    assert not any(plateaus([None] * 50, patience=3))


def test_a_plateau_is_found_at_the_same_epoch_after_an_interruption() -> None:
    scores: list[float | None] = [0.2, 0.6, 0.6, 0.6, 0.6]
    state = RunState()
    before = plateaus(scores[:3], 3, state)
    after = plateaus(scores[3:], 3, RunState(**vars(state)))
    assert before + after == plateaus(scores, 3) == [False] * 4 + [True]
