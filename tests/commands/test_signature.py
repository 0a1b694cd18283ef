"""The Python functions and the command line have the same options, because one is derived from the other."""

import inspect
import re
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import typer

import autocrossdim
from autocrossdim.cli import app
from autocrossdim.commands import COMMANDS
from autocrossdim.commands.arguments import assignments, numbers, sbatch_options, seconds, several
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.system.errors import UserError


def command_line(name: str) -> dict[str, typer.core.TyperOption]:
    group = typer.main.get_command(app)
    command = group.commands[name]  # type: ignore[attr-defined]
    return {parameter.name: parameter for parameter in command.params}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_the_options_of_its_function(name: str) -> None:
    function = getattr(import_module(f"autocrossdim.commands.{name}"), name)
    parameters = inspect.signature(function).parameters
    assert command_line(name).keys() - {"json", "help"} == parameters.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_at_most_three_subjects_are_positional(name: str) -> None:
    function = getattr(import_module(f"autocrossdim.commands.{name}"), name)
    kinds = [parameter.kind for parameter in inspect.signature(function).parameters.values()]
    assert kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) <= 3
    assert set(kinds) <= {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    unexplained = [parameter.name for parameter in command_line(name).values() if not getattr(parameter, "help", "")]
    assert not unexplained


def test_the_choices_of_a_plan_are_declared_once() -> None:
    for name in ("plan", "plan_and_preprocess", "run"):
        assert command_line(name).keys() >= PlanOptions.model_fields.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_dataset_may_be_named_by_its_number(name: str) -> None:
    parameters = inspect.signature(getattr(autocrossdim, name)).parameters
    kinds = [parameters[each].annotation for each in ("dataset", "model") if each in parameters]
    assert all(int in get_args(kind) for kind in kinds)


def test_help_shows_the_types_that_python_accepts_and_not_the_command_line() -> None:
    parameters = inspect.signature(autocrossdim.train).parameters
    assert parameters["config"].annotation == str | None
    shown = str(inspect.signature(autocrossdim.run))
    assert "Option(" not in shown
    assert "Annotated" not in shown


@pytest.mark.parametrize("name", COMMANDS)
def test_the_docstring_explains_every_parameter(name: str) -> None:
    function = getattr(autocrossdim, name)
    text = function.__doc__
    assert not re.search(r"\*\*options|: As for", text)
    for parameter in inspect.signature(function).parameters:
        assert re.search(rf"^ +{parameter}: \S", text, re.MULTILINE), parameter


def test_a_caller_can_catch_what_it_can_correct(tmp_path: Path) -> None:
    assert autocrossdim.UserError is UserError
    with pytest.raises(autocrossdim.UserError):
        autocrossdim.verify(tmp_path / "absent")


def test_public_names_are_completed_in_notebooks() -> None:
    assert set(dir(autocrossdim)) == {*autocrossdim.__all__, "__version__"}


def test_every_command_is_a_public_function() -> None:
    assert set(COMMANDS) == set(autocrossdim.__all__) - {"Predictor", "UserError"}


def test_public_names_stay_callable_whatever_was_imported() -> None:
    import autocrossdim.report.page

    for name in autocrossdim.__all__:
        assert callable(getattr(autocrossdim, name)), name
    assert autocrossdim.report.__name__ == "report"
    assert autocrossdim.__version__


def test_a_former_name_is_answered_with_the_present_one(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="no parameter 'settings': it is now called 'set'"):
        autocrossdim.train(tmp_path, settings={})  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="no parameter 'memory_gb': it is now called 'memory'"):
        autocrossdim.plan(tmp_path, memory_gb=8)
    with pytest.raises(TypeError, match=r"no parameter 'options': give the fields of PlanOptions as keywords"):
        autocrossdim.plan_and_preprocess(tmp_path, options=PlanOptions(memory=8))
    with pytest.raises(TypeError, match="Did you mean 'encoder'"):
        autocrossdim.plan(tmp_path, encodr="resnet18")
    with pytest.raises(TypeError, match=r"train\(\) takes only dataset by position. Name the others: work=, config="):
        autocrossdim.train(tmp_path, tmp_path / "work")  # type: ignore[misc]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"devices": 0}, "devices=0: must be at least 1"),
        ({"devices": np.int64(0), "restart": np.True_}, "devices=0: must be at least 1"),
        ({"devices": "2"}, "devices='2': must be a whole number"),
        ({"epochs": True}, "epochs=True: must be a whole number"),
        ({"restart": "yes"}, "restart='yes': must be true or false"),
    ],
)
def test_numbers_and_switches_have_the_bounds_of_the_command_line(
    wrong: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        autocrossdim.train(tmp_path, **wrong)


def test_values_may_be_given_as_text_or_as_python_objects() -> None:
    assert seconds("30m") == seconds(1800) == 1800
    assert seconds("2h") == 7200
    assert assignments(["a=1", "b=x", "c=true"]) == {"a": 1, "b": "x", "c": True}
    assert assignments(["a=off", "b=False", "c=no", "d=Yes"]) == {"a": False, "b": False, "c": False, "d": True}
    assert assignments({"a": 1, "b": "off"}) == {"a": 1, "b": False}
    assert numbers("48,64,48", "--patch-size") == numbers([48, 64, 48], "--patch-size") == (48, 64, 48)
    with pytest.raises(UserError, match="--patch-size 64: use two or three numbers"):
        numbers(64, "--patch-size")
    assert sbatch_options("time=1:00:00,gres=gpu:1") == {"time": "1:00:00", "gres": "gpu:1"}
    assert several(3) == (3,)
    assert several(["0", "1"]) == ("0", "1")
    assert several(1.5) == (1.5,)


@pytest.mark.parametrize("text", ["", "soon", "-5m", "1e9h", "0s", "5 m"])
def test_a_duration_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="--max-time"):
        seconds(text)


def test_a_value_out_of_bounds_names_its_option(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(
        '{"channel_names": {"0": "a"}, "labels": {"b": 1}, "numTraining": 0, "file_ending": ".nii.gz"}'
    )
    with pytest.raises(UserError, match="--memory"):
        autocrossdim.plan(tmp_path, memory=-1)
    with pytest.raises(UserError, match="--memory: must be a number"):
        autocrossdim.plan(tmp_path, memory="8GB")
    with pytest.raises(UserError, match="--slices"):
        autocrossdim.plan(tmp_path, slices=2)
