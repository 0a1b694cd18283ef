"""`autocrossdim report`: one page on data, decision and results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from autocrossdim.commands.arguments import DatasetArgument, WorkOption
from autocrossdim.commands.signature import Option, command


@command()
def report(
    dataset: DatasetArgument,
    *,
    work: WorkOption = None,
    output: Annotated[
        str | Path | None,
        Option("HTML file to write (default: report.html beside the plan).", Path | None, ("-o", "--output")),
    ] = None,
) -> Path:
    """Write a report on the data, the decision and the held-out results, and on how far they can be trusted.

    Args:
        dataset: Dataset directory, name or number; it must have been planned.
        work: Directory of all results.
        output: HTML file to write; `report.html` beside the plan if None.

    Returns:
        Path of the page.

    Raises:
        UserError: The dataset was not planned, dataset.json changed since then, or a file is missing or damaged.
    """
    from autocrossdim.commands.growth import open_unchanged, outgrown_folds, training_words
    from autocrossdim.records.checkpoint import reader
    from autocrossdim.report.page import write_report
    from autocrossdim.system.files import check_output

    project = open_unchanged(dataset, work=work)
    page = project.workspace.report if output is None else Path(output)
    check_output(page)
    read = reader()
    outgrown = outgrown_folds(project, read=read)
    write_report(
        project.dataset,
        project.workspace,
        splits=project.splits,
        output=page,
        work=work,
        retraining={
            name: training_words([fold for fold in outgrown if fold.configuration == name])[0]
            for name in dict.fromkeys(fold.configuration for fold in outgrown)
        },
        read=read,
    )
    return page


def present(page: Path, **_: object) -> Iterator[str]:
    """Yield what the command line prints: where the page is."""
    yield f"The report was written to {page}. Open it in a browser; it needs no other file."
