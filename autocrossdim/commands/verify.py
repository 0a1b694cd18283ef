"""`autocrossdim verify`: all problems of a dataset in one list."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from autocrossdim.commands.arguments import DatasetArgument, ProcessesOption
from autocrossdim.commands.signature import command
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import counted

if TYPE_CHECKING:
    from autocrossdim.data.verify import Report


@command()
def verify(dataset: DatasetArgument, *, processes: ProcessesOption = None) -> "Report":
    """Check a dataset and list all problems.

    Args:
        dataset: Dataset directory, or its name or number below `$AUTOCROSSDIM_RAW` or `$nnUNet_raw`.
        processes: Worker processes; each holds one case in memory.

    Returns:
        All problems and warnings.

    Raises:
        UserError: There is no such dataset.
    """
    from autocrossdim.data.find import find_raw
    from autocrossdim.data.verify import Report
    from autocrossdim.data.verify import verify as check
    from autocrossdim.system.processes import default_processes

    path = find_raw(dataset)
    report = check(path, processes or default_processes())
    advice = _to_convert(path) if report.faults else None
    return report if advice is None else Report([advice], [])


def _to_convert(path: Path) -> str | None:
    """Return how to convert a directory that is no dataset but has a known layout; None for any other directory."""
    from autocrossdim.data.converting.layouts import detect
    from autocrossdim.data.structure import check_structure

    layout = detect(path)
    if layout is None or not check_structure(path).faults:
        return None
    name = f"Dataset001_{re.sub('[^A-Za-z0-9]', '', path.resolve().name) or 'Name'}"
    words = ["autocrossdim", "convert", str(path), "-o", name, "--layout", layout.name]
    modalities = layout.modalities(path)
    command = shlex.join([*words, *(["--modality", modalities[0]] if len(modalities) > 1 else [])])
    command += f" (or {' or '.join(modalities[1:])}; each is a dataset of its own)" if len(modalities) > 1 else ""
    if (path / "imagesTr").is_dir():
        return (
            f"{path / 'dataset.json'}: no such file. Write it (datasets_template/README.md explains its keys), or let "
            f"autocrossdim write a complete dataset from these files: {command}"
        )
    return (
        f"{path}: not a dataset in nnU-Net's format, but it looks like the layout {layout.name}. Convert it: {command}"
    )


def present(report: "Report", *, dataset: str, **_: object) -> Iterator[str]:
    """Yield what the command line prints, the next command included; faults end in a UserError."""
    from autocrossdim.commands.next_step import next_step

    yield from report.notes
    yield from (f"warning: {warning}" for warning in report.warnings)
    if report.faults:
        raise UserError(f"{counted(len(report.faults), 'problem')} found.\n" + "\n".join(report.faults))
    yield "No problems found."
    yield next_step("plan_and_preprocess", dataset)
