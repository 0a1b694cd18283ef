import pytest

from trainers.schedule import Clock, learning_rate_factor
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
