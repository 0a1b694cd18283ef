"""Parameters that several commands share, and the forms in which their values may be given."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from autocrossdim.commands.signature import Option
from autocrossdim.data.writing.formats import HELP
from autocrossdim.system.errors import UserError

Fold = int | str
Item = TypeVar("Item")

WHOLE = "0/1"  # the part that is everything
SWITCHES = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}

DatasetArgument = Annotated[
    str | Path | int,
    Option("Dataset directory, or its name or number below $AUTOCROSSDIM_RAW or $nnUNet_raw.", str, metavar="DATASET"),
]
ModelArgument = Annotated[
    str | Path | int,
    Option(
        "Dataset trained in --work, a model directory, an exported .acd file, or hf://OWNER/NAME.", str, metavar="MODEL"
    ),
]
WorkOption = Annotated[
    Path | str | None,
    Option("Directory of all results (default: $AUTOCROSSDIM_WORK, else ./autocrossdim_work).", Path | None),
]
DeviceOption = Annotated[str, Option("Device: auto, cpu, cuda, cuda:N, xpu or mps.")]
ProcessesOption = Annotated[
    int | None,
    Option("Worker processes; each holds one case in memory (default: one per core, at most 8).", min=1, max=1024),
]
AveragedOption = Annotated[
    str | Sequence[str],
    Option(
        "Configuration to average; repeat for several (default: the choice of find_best, else the plan's).", list[str]
    ),
]
EpochsOption = Annotated[int | None, Option("Number of epochs (default: 100).", min=1, max=1_000_000)]
MaxTimeOption = Annotated[
    str | float | None,
    Option("Training time per fold, such as 90s, 30m or 2h; the learning rate schedule ends with it.", str | None),
]
DevicesOption = Annotated[
    int, Option("Number of GPUs (or CPU processes) that train one fold together.", min=1, max=1024)
]
SetOption = Annotated[
    Mapping[str, Any] | Sequence[str] | None,
    Option(
        "Any other training setting, such as learning_rate=3e-4; repeat for several.", list[str], metavar="NAME=VALUE"
    ),
]
ParallelOption = Annotated[
    int | None, Option("Number of folds or runs trained at a time (default: the number of GPUs).", min=1, max=1024)
]
SlurmOption = Annotated[
    str | Mapping[str, str] | None,
    Option(
        "Submit SLURM jobs with these sbatch options, such as partition=gpu,time=12:00:00,gres=gpu:1.",
        str | None,
        metavar="OPTIONS",
    ),
]
JobsOption = Annotated[int | None, Option("Number of jobs that --slurm submits.", min=1, max=10_000)]
FormatOption = Annotated[str, Option(f"Output format: {HELP}.", metavar="FORMAT")]
OutputOption = Annotated[str | Path, Option("Output directory.", Path, ("-o", "--output"))]


def several(value: Any) -> tuple[Any, ...]:
    """Return one value, or a sequence of values, as a tuple; None is no value."""
    if value is None:
        return ()
    return tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (value,)


def seconds(value: str | float | None) -> float | None:
    """Return a duration in seconds, given as a number of seconds or as text such as `90s`, `30m`, `2h`, `1d`.

    Raises:
        UserError: The text has another form, or the duration is not positive.
    """
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd]?)", str(value))
    if match is None or float(match[1]) == 0:
        raise UserError(f"--max-time {value}: give a number with the unit s, m, h or d, such as 90s, 30m or 2h.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def training_settings(
    assigned: Mapping[str, Any] | Sequence[str] | None, *, epochs: int | None, max_time: str | float | None
) -> dict[str, Any]:
    """Return the training settings of `--set`, `--epochs` and `--max-time`; the last two take precedence.

    Raises:
        UserError: An assignment or the time has another form.
    """
    settings = assignments(assigned)
    settings |= {} if epochs is None else {"epochs": epochs}
    settings |= {} if max_time is None else {"max_seconds": seconds(max_time)}
    return settings


def assignments(value: Mapping[str, Any] | Sequence[str] | None) -> dict[str, Any]:
    """Return settings given as a mapping, or as `NAME=VALUE` texts whose values are JSON or plain words.

    The words on, yes and true, and off, no and false, are true and false, whatever their case.

    Raises:
        UserError: A text is not of that form.
    """
    if value is None or isinstance(value, Mapping):
        return {name: _switched(content) for name, content in (value or {}).items()}
    settings: dict[str, Any] = {}
    for text in several(value):
        name, equals, content = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: use NAME=VALUE, such as learning_rate=3e-4.")
        try:
            settings[name] = json.loads(content)
        except (ValueError, RecursionError):  # a word, or nesting beyond any setting
            settings[name] = _switched(content)
    return settings


def _switched(value: Any) -> Any:
    return SWITCHES.get(value.lower(), value) if isinstance(value, str) else value


def check_parallel(parallel: int | None, slurm: str | Mapping[str, str] | None) -> None:
    """Refuse --parallel beside --slurm.

    Raises:
        UserError: Both are given.
    """
    if parallel is not None and slurm is not None:
        raise UserError("--parallel cannot be combined with --slurm: SLURM decides how many jobs run at a time.")


def sbatch_options(value: str | Mapping[str, str]) -> dict[str, str]:
    """Return options of `sbatch` given as a mapping or as `KEY=VALUE,KEY=VALUE`; a value may hold commas.

    Raises:
        UserError: The text is not of that form.
    """
    if isinstance(value, Mapping):
        return dict(value)
    options = {}
    for part in re.split(r",(?=[A-Za-z][\w-]*=)", value):
        key, _, content = part.partition("=")
        if not (key and content):
            raise UserError(f"--slurm {value}: use KEY=VALUE,..., such as partition=gpu,time=12:00:00,gres=gpu:1.")
        options[key.strip()] = content.strip()
    return options


def numbers(value: str | Sequence[int] | int | None, option: str) -> tuple[int, ...] | None:
    """Return two or three whole numbers given as a sequence or as text such as `48,64,48`.

    Raises:
        UserError: The text is not of that form.
    """
    if not isinstance(value, str | int):
        return None if value is None else tuple(value)
    text = str(value)
    if not re.fullmatch(r"[1-9]\d{0,4}(,[1-9]\d{0,4}){1,2}", text):
        raise UserError(f"{option} {value}: use two or three numbers up to 99999 with commas, such as 48,64,48.")
    return tuple(int(part) for part in text.split(","))


def part_of(items: Sequence[Item], part: str) -> list[Item]:
    """Return every Nth item from the Ith on, for `part` = `I/N` with I from 0 to N - 1.

    Raises:
        UserError: `part` has another form.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", part, re.ASCII)
    if match is None or not int(match[1]) < int(match[2]):
        raise UserError(f"--part {part}: use I/N with I from 0 to N - 1, such as 0/4 to 3/4 on four machines.")
    return list(items[int(match[1]) :: int(match[2])])
