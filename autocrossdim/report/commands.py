"""The commands of a supplement, put together from what the plan and the checkpoints record.

They are not those that were typed, which may name directories and people, but lead to the same plan and settings.
"""

import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import PurePath, PureWindowsPath

from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan
from autocrossdim.records.plan_options import value_of


def planning_command(plan: Plan) -> str:
    """Return the command that makes the plan."""
    return shlex.join(["autocrossdim", "plan_and_preprocess", plan.dataset, *planning_words(plan)])


def planning_words(plan: Plan) -> list[str]:
    """Return the options with which the plan was made."""
    return [word for name, value in plan.overrides.items() for word in _option(name, value)]


def training_commands(plan: Plan, checkpoints: Sequence[Checkpoint], *, folds: int) -> list[str]:
    """Return the commands that train the folds of a configuration: one if all folds were trained alike.

    Folds whose checkpoint does not record which settings were requested are left out.

    Args:
        plan: The plan.
        checkpoints: Folds of one configuration.
        folds: Number of folds in the plan.
    """
    alike: dict[tuple[str, ...], list[int | str]] = {}
    for checkpoint in checkpoints:
        if checkpoint.requested is not None:
            alike.setdefault(tuple(_training_words(plan, checkpoint)), []).append(checkpoint.fold)
    commands = []
    for words, trained in alike.items():
        chosen = [] if len(trained) == folds else [word for fold in trained for word in ("--fold", str(fold))]
        commands.append(shlex.join([*words, *chosen]))
    return commands


def _training_words(plan: Plan, checkpoint: Checkpoint) -> Iterator[str]:
    yield from ("autocrossdim", "train", plan.dataset, "--config", checkpoint.configuration)
    weights = str(checkpoint.provenance.get("asked", ""))
    if weights and weights != plan.configuration(checkpoint.configuration).default_weights:
        yield from ("--weights", _without_directory(weights))
    if checkpoint.environments and (devices := checkpoint.environments[-1].devices) > 1:
        yield from ("--devices", str(devices))
    yield from setting_words(checkpoint)


def setting_words(checkpoint: Checkpoint) -> Iterator[str]:
    """Yield the options of `train` for the settings that were requested; none if these were not recorded."""
    for name in checkpoint.requested or ():
        value = checkpoint.settings.get(name)
        if name == "epochs":
            yield from ("--epochs", str(value))
        elif name == "max_seconds":
            yield from ("--max-time", f"{value:.15g}s")
        else:
            yield from ("--set", f"{name}={value if isinstance(value, str) else json.dumps(value)}")


def _option(name: str, value: str) -> Iterator[str]:
    """Yield the words of an option of the planner on the command line; the plan stores its value as `str` writes it."""
    flag = f"--{name.replace('_', '-')}"
    known = value_of(value)
    if isinstance(known, bool):
        yield flag if known else f"--no-{flag[2:]}"
    elif isinstance(known, tuple):
        yield from (flag, ",".join(map(str, known)))
    else:
        yield from (flag, f"{known:g}" if isinstance(known, float) else value)


def _without_directory(weights: str) -> str:
    """Return starting weights without the directory of a file; that of a trained model is called MODEL."""
    if "://" in weights or not (set(weights) & {"/", "\\"}) or weights.startswith("timm/"):
        return weights
    name = PureWindowsPath(PurePath(weights).name).name
    return name if "." in name else "MODEL"
