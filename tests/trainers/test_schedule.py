import pytest

from trainers.schedule import BETTER, Clock, Plateau, learning_rate_factor
from trainers.settings import Settings


def test_the_rate_rises_and_then_ends_at_0() -> None:
    factors = [learning_rate_factor(p / 100, 0.1) for p in range(101)]
    assert factors[:11] == sorted(factors[:11])
    assert factors[10] == 1
    assert factors[10:] == sorted(factors[10:], reverse=True)
    assert factors[-1] == pytest.approx(0)


def test_a_run_ends_with_its_last_step() -> None:
    clock = Clock(Settings(epochs=2, steps_per_epoch=5))
    clock.step = 5
    assert clock.progress == 0.5
    clock.step = 10
    assert clock.progress == 1


def test_or_with_its_time_earlier_sittings_counted_in() -> None:
    clock = Clock(Settings(epochs=10, max_seconds=1000), seconds_before=900)
    assert 0.9 <= clock.progress < 0.95


def test_a_shortened_schedule_still_ends_at_1_and_never_later_than_planned() -> None:
    settings = Settings(epochs=100, steps_per_epoch=10, cooldown=5)
    clock = Clock(settings, step=200)
    clock.shorten()
    seen = []
    while clock.progress < 1:
        clock.step += 1
        seen.append(clock.progress)
    assert clock.step == 250
    assert seen == sorted(seen)
    late = Clock(settings, step=990)
    late.shorten()
    late.step = 1000
    assert late.progress == 1


def test_a_plateau_is_patience_epochs_without_a_better_score() -> None:
    plateau = Plateau(patience=3)
    scores = [0.1, 0.5, 0.5 + BETTER / 2, 0.4, 0.5, 0.5]
    assert [plateau.reached(epoch, score) for epoch, score in enumerate(scores, start=1)] == [False] * 4 + [True] * 2


def test_a_plateau_needs_patience_and_scores() -> None:
    assert not any(Plateau(patience=0).reached(epoch, 0.5) for epoch in range(1, 50))
    assert not any(Plateau(patience=3).reached(epoch, None) for epoch in range(1, 50))


def test_a_plateau_goes_on_from_its_state() -> None:
    first, second = Plateau(patience=3), Plateau(patience=3)
    for epoch, score in enumerate([0.2, 0.6, 0.6], start=1):
        first.reached(epoch, score)
    second.load(first.state())
    assert first.reached(4, 0.6) == second.reached(4, 0.6)
    assert first.reached(5, 0.6) == second.reached(5, 0.6) is True
