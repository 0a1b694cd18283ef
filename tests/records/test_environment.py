from datetime import timedelta

from autocrossdim.records.environment import Environment, extended


def test_training_that_goes_on_in_the_same_environment_only_moves_its_last_day() -> None:
    first = Environment.now("A GPU", devices=1, precision="bf16")
    next_day = first.first_day + timedelta(days=1)
    later = first.model_copy(update={"first_day": next_day, "last_day": next_day})
    assert extended([], first) == [first]
    (known,) = extended([first], later)
    assert (known.first_day, known.last_day) == (first.first_day, next_day)
    other = later.model_copy(update={"device": "Another GPU"})
    assert extended([known], other) == [known, other]
