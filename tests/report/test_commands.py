"""The commands of the methods lead to the recorded plan and settings, and name no directory."""

from collections.abc import Callable
from typing import Any

import pytest

from autocrossdim.commands.arguments import assignments, seconds
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.environment import Environment
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.records.run_state import RunState
from autocrossdim.report.commands import planning_command, training_commands

Build = Callable[..., Any]


@pytest.fixture
def trained(make_plan: Build) -> Build:
    """A checkpoint: `trained(fold=1, weights="random", epochs=3)`; settings are those that were requested."""

    def build(fold: int = 0, weights: str = "imagenet", devices: int = 1, **settings: Any) -> Checkpoint:
        return Checkpoint(
            plan=make_plan(),
            configuration="dx",
            fold=fold,
            split={"train": [], "val": []},
            network={},
            settings={"seed": 0, **settings},
            provenance={"asked": weights},
            run=RunState(),
            requested=sorted(settings),
            environments=[Environment.now("A GPU", devices=devices, precision="bf16")],
        )

    return build


def test_choices_of_the_plan_are_written_as_they_are_typed(make_plan: Build) -> None:
    options = PlanOptions(memory=6, patch_size=(32, 48, 32), keep_orientation=True, encoder="resnet18")
    plan = make_plan(overrides=options.overrides("dx"))
    assert planning_command(make_plan()) == "autocrossdim plan_and_preprocess Dataset001_Tiny"
    command = planning_command(plan)
    assert command.startswith("autocrossdim plan_and_preprocess Dataset001_Tiny --")
    for words in ("--memory 6", "--patch-size 32,48,32", "--keep-orientation", "--encoder resnet18", "--planner dx"):
        assert f" {words}" in command


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"memory": 6, "patch_size": (32, 48, 32), "batch_size": 4, "threshold": 2.5, "slices": 3, "precision": "16"},
        {"encoder": "resnet18", "network": "paper", "deep_supervision": True, "keep_orientation": True},
    ],
)
def test_choices_of_the_plan_are_options_again(options: dict[str, Any]) -> None:
    chosen = PlanOptions(**options)
    assert PlanOptions(**PlanOptions.values(chosen.overrides("dx"))) == chosen


def test_folds_that_were_trained_alike_are_one_command(make_plan: Build, trained: Build) -> None:
    plan = make_plan()
    alike = [trained(fold, "random", 2, epochs=3, max_seconds=5400.5) for fold in range(2)]
    train = "autocrossdim train Dataset001_Tiny --config dx"
    assert training_commands(plan, [trained(0), trained(1)], folds=2) == [train]
    (command,) = training_commands(plan, alike, folds=2)
    assert command == f"{train} --weights random --devices 2 --epochs 3 --max-time 5400.5s"
    assert seconds("5400.5s") == 5400.5
    other = trained(2, compile=True, monitor="tensorboard")
    assert training_commands(plan, [*alike, other], folds=3) == [
        f"{command} --fold 0 --fold 1",
        f"{train} --set compile=true --set monitor=tensorboard --fold 2",
    ]
    assert assignments(["compile=true"]) == {"compile": True}


def test_what_was_not_recorded_is_no_command(make_plan: Build, trained: Build) -> None:
    old = trained()
    old.requested = None
    assert training_commands(make_plan(), [old], folds=1) == []


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("noisy_student", "noisy_student"),
        ("timm/efficientnet_b0.ra_in1k", "timm/efficientnet_b0.ra_in1k"),
        ("hf://owner/name@12ab", "hf://owner/name@12ab"),
        ("/home/mueller/b0.pth", "b0.pth"),
        (r"C:\Users\mueller\b0.pth", "b0.pth"),
        ("/home/mueller", "MODEL"),
    ],
)
def test_weights_are_named_without_directory(make_plan: Build, trained: Build, asked: str, shown: str) -> None:
    (command,) = training_commands(make_plan(), [trained(weights=asked)], folds=1)
    assert command.endswith(f" --weights {shown}")
