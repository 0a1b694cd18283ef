"""`autocrossdim find_best`: choose among trained configurations and pairs by cross-validation."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from autocrossdim.commands.arguments import DatasetArgument, DeviceOption, ProcessesOption, WorkOption
from autocrossdim.commands.signature import command
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autocrossdim.records.best import Best


@command()
def find_best(
    dataset: DatasetArgument,
    *,
    work: WorkOption = None,
    device: DeviceOption = "auto",
    processes: ProcessesOption = None,
) -> "Best":
    """Compare all trained configurations and pairs on held-out cases, and choose the model that predict uses.

    The cheapest candidate is chosen whose Dice is not distinguishable from that of the best one and lower by at most
    0.01. Post-processing is then tested on it, and its probabilities are calibrated.

    Args:
        dataset: Dataset directory, name or number; at least one configuration must be trained in all folds.
        work: Directory of all results.
        device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.
        processes: Cases compared at a time.

    Returns:
        The choice, which is also written to best.json.

    Raises:
        UserError: No configuration is trained and validated in all folds, or dataset.json changed since the dataset
            was planned.
    """
    from autocrossdim.commands.growth import open_unchanged
    from autocrossdim.selection.find_best import find_best as choose_best
    from autocrossdim.system.lock import locked

    project = open_unchanged(dataset, work=work)
    validation = project.cross_validation(device=device, processes=processes)
    with locked(project.workspace.lock, project.workspace.root):
        return choose_best(validation)


def present(best: "Best", *, dataset: str, work: Any, **_: object) -> "Iterator[RenderableType]":
    """Yield what the command line prints: the comparison, the reasons, the students, and the next command."""
    from autocrossdim.commands.next_step import next_step
    from autocrossdim.report.terminal import best_table

    yield best_table(best)
    yield from (*best.reasons, *best.budgets)
    yield from _students(dataset, work, best)
    yield next_step("report", dataset, work=work)


def _students(dataset: str, work: Any, best: "Best") -> list[str]:
    """Return how the students of the ensemble compare with it; a damaged record is only a warning here."""
    from autocrossdim.commands.project import Project
    from autocrossdim.records.student import students
    from autocrossdim.system.console import warn

    try:
        return [student.sentence for student in students(Project.open(dataset, work=work).workspace, best)]
    except UserError as error:
        warn(str(error))
        return []
