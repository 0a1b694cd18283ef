import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocrossdim.system.errors import UserError
from trainers.settings import Settings, read_settings

EXTREME = [
    ("workers", 2000),
    ("steps_per_epoch", 1e15),
    ("epochs", 10**5000),
    ("learning_rate", 1e300),
    ("learning_rate", float("nan")),
    ("seed", -1),
    ("epochs", 1.5),
    ("max_seconds", "soon"),
    ("monitor", "paper"),
    ("augmentation", [[[[1]]]]),
    ("warmup", {"a": "b" * 10**6}),
    ("channel_dropout", 1),
]


@pytest.mark.parametrize(("name", "value"), EXTREME, ids=range(len(EXTREME)))
def test_an_extreme_value_ends_in_one_short_line_that_names_the_setting(name: str, value: Any) -> None:
    with pytest.raises(UserError, match=rf"^Setting {name}=.*: must be") as caught:
        read_settings({name: value})
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_a_deeply_nested_value_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UserError, match="Setting epochs="):
        read_settings({"epochs": value})


@given(st.sampled_from(sorted(Settings.model_fields)), st.one_of(st.integers(), st.floats(), st.text(), st.none()))
def test_any_value_is_either_accepted_or_explained(name: str, value: Any) -> None:
    try:
        settings = read_settings({name: value})
    except UserError as error:
        message = str(error)
    else:
        message = f"{name}={getattr(settings, name)}"
    assert name in message


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_described_and_every_number_bounded(name: str) -> None:
    schema = Settings.model_json_schema()["properties"][name]
    assert re.fullmatch(r"[A-Z].*\.", schema["description"])
    for kind in [schema, *schema.get("anyOf", [])]:
        if kind.get("type") in ("integer", "number"):
            assert {"minimum", "exclusiveMinimum"} & kind.keys(), name
            assert {"maximum", "exclusiveMaximum"} & kind.keys(), name


@pytest.mark.parametrize("name", ["augment", "affine", "elastic"])
def test_a_setting_of_an_earlier_version_is_answered_with_what_replaces_it(name: str) -> None:
    with pytest.raises(UserError, match=f"^There is no setting '{name}' any more. Use augmentation="):
        read_settings({name: 1})


def test_an_unknown_setting_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(UserError, match=r"^Unknown setting 'epoch'\. Did you mean 'epochs'\? Settings: accumulate, "):
        read_settings({"epoch": 3})
    with pytest.raises(UserError, match=r"^Unknown setting 'lr'\. Did you mean 'learning_rate'\? "):
        read_settings({"lr": 3e-4})
    with pytest.raises(UserError, match=r"^Unknown setting 'zzz'\. Settings: "):
        read_settings({"zzz": 3})


def test_a_loss_without_terms_is_refused() -> None:
    with pytest.raises(UserError, match="dice_weight and cross_entropy_weight cannot both be 0"):
        read_settings({"dice_weight": 0, "cross_entropy_weight": 0})


def test_settings_survive_a_checkpoint() -> None:
    settings = read_settings({"epochs": 7, "learning_rate": 3e-4, "max_seconds": 60})
    assert read_settings(json.loads(json.dumps(settings.model_dump()))) == settings


def test_unlabelled_scans_need_the_average() -> None:
    with pytest.raises(UserError, match="averaging=0 turns off"):
        read_settings({"unlabelled": 1, "averaging": 0})
