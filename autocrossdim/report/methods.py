"""The methods of a supplement, from what plan, fingerprint and checkpoints record; what is not recorded is left out."""

import platform
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import numpy as np

from autocrossdim.models import about, card
from autocrossdim.records.best import Best
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.environment import Environment
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import Workspace
from autocrossdim.report.commands import planning_command, training_commands
from autocrossdim.report.formats import network, sizes
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import counted

Rows = list[tuple[str, str]]

PAPER = (
    "H. Messaoudi, A. Belaid, D. Ben Salem, P.-H. Conze. Cross-dimensional transfer learning in medical image "
    "segmentation with deep learning. Medical Image Analysis 88 (2023) 102868. arXiv:2307.15872."
)

LEARNING = "Dice loss and cross-entropy were minimised with NAdam{}."


def methods(
    plan: Plan,
    fingerprint: Fingerprint,
    workspace: Workspace,
    configurations: Sequence[str],
    *,
    folds: int,
    complete: bool,
    groups: int,
    outgrown: bool = False,
    best: Best | None,
    unit: str,
    read: Callable[[Path], Checkpoint] = Checkpoint.read,
) -> tuple[str, Rows]:
    """Return a paragraph and a table (name, value).

    Args:
        plan: The plan.
        fingerprint: Measurements of the cases.
        workspace: The workspace with the checkpoints.
        configurations: Configurations of the model.
        folds: Number of folds.
        complete: Whether all folds were validated.
        groups: Number of groups (patients).
        outgrown: Whether cases have changed since the model was trained.
        best: What `find_best` chose, if it was run.
        unit: Unit of the spacing.
        read: Reads a checkpoint, of which the weights are not needed.
    """
    cases = counted(len(fingerprint.cases), "annotated case")
    of_groups = f" of {counted(groups, 'group')} (patients)" if groups != len(fingerprint.cases) else ""
    spacings = np.array([case.spacing for case in fingerprint.cases])[:, -fingerprint.dims :]
    median, axes = sizes(np.median(spacings, axis=0)), "z, y, x" if fingerprint.dims == 3 else "y, x"
    ends = (sizes(end) for end in (spacings.min(axis=0), spacings.max(axis=0)))
    labels = {name: fingerprint.cases_with(values) for name, values in plan.labels.foreground.items()}
    schemes = zip(plan.channel_names, plan.normalization, strict=True)
    rows = [
        ("Cases", f"{cases}{of_groups}"),
        *([(f"Spacing ({axes}), mm", f"median {median}; {' to '.join(ends)}")] if unit == "mm" else []),
        ("Labels", ", ".join(f"{name} ({counted(number, 'case')})" for name, number in labels.items())),
        ("Channels, normalisation", ", ".join(f"{name} ({channel.scheme})" for name, channel in schemes)),
        ("Folds", str(folds)),
    ]
    trained = {name: _checkpoints(workspace, name, folds, read) for name in plan.with_stages(configurations)}
    for name, checkpoints in trained.items():
        rows += _planned(plan, name, unit) + _trained(name, checkpoints)
    if best is not None:
        kept = ", ".join(step.name for step in best.postprocessing)
        rows.append(("Post-processing", f"largest component of {kept}" if kept else "none"))
    program = version("autocrossdim")
    rows.append(("Command: plan", planning_command(plan)))
    for name, checkpoints in trained.items():
        typed = training_commands(plan, checkpoints, folds=folds)
        rows += [(f"Command: train {name}", command) for command in typed]
    if best is not None:
        rows.append(("Command: choose the model", f"autocrossdim find_best {plan.dataset}"))
    rows += [
        (
            "Versions when this page was written",
            f"autocrossdim {program}, Python {platform.python_version()}, PyTorch {version('torch')}",
        ),
        ("Citation of the method", PAPER),
        ("Citation of the software", f"autocrossdim developers. autocrossdim, version {program}."),
    ]
    known = [each for some in trained.values() for each in some]
    validation = _validation(folds, known) if folds and complete else ""
    networks = " and ".join(
        f"{each.name} ({network(each)}, {each.dims}D, patch size {_product(each.patch_size)}, "
        f"batch size {each.batch_size})"
        for each in map(plan.configuration, configurations)
    )
    averaged = " The probabilities of the configurations were averaged." if len(configurations) > 1 else ""
    text = (
        f"Segmentation was configured with autocrossdim (Messaoudi et al., 2023) from {cases}{of_groups}"
        f"{f' with a median spacing of {median} mm ({axes})' if unit == 'mm' else ''}. "
    )
    if outgrown:
        text += "Cases were added, removed or corrected after training; the model does not reflect these changes. "
    if len(plan.channel_names) > 1:
        text += f"The input channels were {', '.join(plan.channel_names[:-1])} and {plan.channel_names[-1]}. "
    if networks:
        subject, verb = ("configuration", "was") if len(configurations) == 1 else ("configurations", "were")
        text += f"The {subject} {networks} {verb} trained{validation}.{averaged}"
        described = [
            _described(name if len(trained) > 1 else None, each, one="Each fold" if folds > 1 else "The network")
            for name, each in trained.items()
            if each
        ]
        text = " ".join([text, *described, *_learning(known), *_place(known)])
    return text.strip(), rows


def _planned(plan: Plan, name: str, unit: str) -> Rows:
    configuration = plan.configuration(name)
    return [
        (f"{name}: network", f"{network(configuration)} ({configuration.dims}D)"),
        (f"{name}: encoder", configuration.encoder),
        *([(f"{name}: trainer", configuration.trainer)] if configuration.trainer != "default" else []),
        (f"{name}: spacing, {unit}", sizes(configuration.spacing)),
        (f"{name}: patch size, batch size", f"{_product(configuration.patch_size)}, {configuration.batch_size}"),
        (f"{name}: planned peak learning rate", f"{configuration.learning_rate:g}"),
        (f"{name}: planned augmentation", configuration.augmentation),
        (f"{name}: share of the image's statistics in batch norms", f"{configuration.image_statistics:g}"),
    ]


def _checkpoints(workspace: Workspace, name: str, folds: int, read: Callable[[Path], Checkpoint]) -> list[Checkpoint]:
    """Return the checkpoints of a configuration; the missing and unreadable ones are left out."""
    found = []
    for number in range(folds):
        with suppress(UserError):
            found.append(read(workspace.fold(name, number).latest))
    return found


def _validation(folds: int, checkpoints: Sequence[Checkpoint]) -> str:
    """Return what was held out: the cases of each fold in turn, or those of the only split."""
    if folds > 1:
        return f" and evaluated in {folds}-fold cross-validation"
    if not checkpoints:
        return " and evaluated on held-out cases"
    train, held_out = (len(checkpoints[0].split.get(part, ())) for part in ("train", "val"))
    return f" on {train} of these cases and evaluated on {counted(held_out, 'other')}"


def _described(name: str | None, checkpoints: Sequence[Checkpoint], *, one: str) -> str:
    """Return a sentence on starting weights, length of training and unlabelled scans.

    Args:
        name: Name of the configuration, if there are several.
        checkpoints: Its checkpoints.
        one: What each of them is called.
    """
    starts = [about.start(checkpoint.provenance) for checkpoint in checkpoints]
    subject = f"{one} of {name}" if name else one
    steps = [checkpoint.run.step for checkpoint in checkpoints]
    length = _range([each.run.epoch for each in checkpoints], "epoch")
    length += f" ({_range(steps, 'optimiser step')})" if all(steps) else ""
    weights = _distinct(_weights(start) for start in starts)
    scans = [len(checkpoint.split.get("unlabelled", ())) for checkpoint in checkpoints]
    unlabelled = f", and also learned from {_range(scans, 'unlabelled scan')}" if any(scans) else ""
    return f"{subject} was trained for {length}, starting from {weights}{unlabelled}."


def _learning(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return a sentence on loss and optimiser; none if a trainer of another package may have used others."""
    trainers = {each.plan.configuration(each.configuration).trainer for each in checkpoints}
    weights = [each.settings.get(key, 1) for each in checkpoints for key in ("dice_weight", "cross_entropy_weight")]
    lookahead = " and Lookahead" if any(each.settings.get("lookahead") for each in checkpoints) else ""
    return [LEARNING.format(lookahead)] if trainers == {"default"} and all(weights) else []


def _weights(start: about.Start) -> str:
    origin = card.origin(start)
    return f"{origin} weights" if origin.endswith("random") else origin


def _place(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Return a sentence on when and with what the folds were trained; none unless all of them record it."""
    if not checkpoints or not all(checkpoint.environments for checkpoint in checkpoints):
        return []
    known = [each for checkpoint in checkpoints for each in checkpoint.environments]
    return [f"Training took place {_days(known)} (device: {_devices(known)}; {_versions(known)})."]


def _days(known: Sequence[Environment]) -> str:
    first, last = min(each.first_day for each in known), max(each.last_day for each in known)
    start, end = (f"{day.day} {day:%B %Y}" for day in (first, last))
    return f"on {start}" if start == end else f"from {start} to {end}"


def _devices(known: Sequence[Environment]) -> str:
    return _distinct(f"{f'{n} × ' if (n := each.devices) > 1 else ''}{each.device}, {each.precision}" for each in known)


def _versions(known: Sequence[Environment]) -> str:
    return _distinct(f"autocrossdim {each.autocrossdim}, PyTorch {each.torch}" for each in known)


def _trained(name: str, checkpoints: Sequence[Checkpoint]) -> Rows:
    """Return what the checkpoints record."""
    if not checkpoints:
        return []
    known = [each for checkpoint in checkpoints for each in checkpoint.environments]
    starts = [about.start(checkpoint.provenance) for checkpoint in checkpoints]
    names = dict.fromkeys(key for checkpoint in checkpoints for key in checkpoint.settings)
    settings = {
        key: _distinct(str(each.settings[key]) for each in checkpoints if key in each.settings) for key in names
    }
    seed = settings.pop("seed", None)
    if checkpoints[0].plan.configuration(name).previous_stage is None:
        settings = {key: value for key, value in settings.items() if not key.startswith("stage_")}
    scans = [len(each.split.get("unlabelled", ())) for each in checkpoints]
    minutes = _each((each.run.seconds / 60 for each in checkpoints if each.run.seconds), ",.1f")
    rows = [
        (f"{name}: folds described", ", ".join(str(each.fold) for each in checkpoints)),
        (f"{name}: training cases per fold", _each(len(each.split.get("train", ())) for each in checkpoints)),
        (f"{name}: unlabelled scans per fold", _each(scans) if any(scans) else ""),
        (f"{name}: epochs per fold", _each(each.run.epoch for each in checkpoints)),
        # Those of the 2D network that a 3D network starts from are not included.
        (f"{name}: optimiser steps per fold", _each(each.run.step for each in checkpoints if each.run.step)),
        (f"{name}: training minutes per fold", minutes),
        (f"{name}: dates of training", _days(known).removeprefix("on ").removeprefix("from ") if known else ""),
        (f"{name}: device, precision", _devices(known)),
        (f"{name}: versions in training", _versions(known)),
        (f"{name}: seed", seed or ""),
        (f"{name}: starting weights", _distinct(card.origin(each) for each in starts)),
        (f"{name}: licence of the starting weights", _distinct(card.licence(each) for each in starts)),
        (
            f"{name}: hyper-parameters",
            "; ".join(f"{key} = {value}" for key, value in settings.items() if value != "None"),
        ),
    ]
    return [(key, value) for key, value in rows if value and value != "not known"]


def _each(numbers: Iterable[float], form: str = ",") -> str:
    """Return one number per fold; one for all if they are the same."""
    known = [format(number, form) for number in numbers]
    return ", ".join(known if len(set(known)) > 1 else known[:1])


def _range(numbers: Sequence[int], noun: str) -> str:
    ends = dict.fromkeys((min(numbers), max(numbers)))
    return f"{' to '.join(f'{end:,}' for end in ends)} {noun}{'' if max(numbers) == 1 else 's'}"


def _distinct(values: Iterable[str]) -> str:
    return " / ".join(dict.fromkeys(values))


def _product(values: Iterable[int]) -> str:
    return " × ".join(map(str, values))
