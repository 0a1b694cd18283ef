"""`autocrossdim verify`: all problems of a dataset in one list."""

from collections.abc import Iterator
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
    from autocrossdim.data.find import find_dataset
    from autocrossdim.data.verify import verify as check
    from autocrossdim.system.processes import default_processes

    return check(find_dataset(dataset), processes or default_processes())


def present(report: "Report", *, dataset: str, **_: object) -> Iterator[str]:
    """Yield what the command line prints, the next command included; faults end in a UserError."""
    from autocrossdim.commands.next_step import next_step

    yield from report.notes
    yield from (f"warning: {warning}" for warning in report.warnings)
    if report.faults:
        raise UserError(f"{counted(len(report.faults), 'problem')} found.\n" + "\n".join(report.faults))
    yield "No problems found."
    yield next_step("plan_and_preprocess", dataset)
