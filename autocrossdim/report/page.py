"""The HTML report: data, plan, cross-validation results and their limits on one page."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from autocrossdim.data.dataset import Dataset
from autocrossdim.data.pictures import PICTURES
from autocrossdim.data.splits import Split
from autocrossdim.records.best import Best
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.plan import Plan
from autocrossdim.records.student import students
from autocrossdim.records.workspace import Workspace
from autocrossdim.report import formats
from autocrossdim.report.decided import next_step
from autocrossdim.report.distributions import fingerprint_chart
from autocrossdim.report.methods import methods
from autocrossdim.report.misses import SEVERAL, hardly_segmented
from autocrossdim.report.pictures import LEGEND_ENTRIES
from autocrossdim.report.results import read_results
from autocrossdim.report.rows import described
from autocrossdim.report.studies import study_sections
from autocrossdim.report.suggested import suggested
from autocrossdim.system.files import write_text
from autocrossdim.system.templates import render
from autocrossdim.system.text import listed


def write_report(
    dataset: Dataset,
    workspace: Workspace,
    *,
    splits: Sequence[Split],
    output: Path,
    work: str | Path | None,
    retraining: Mapping[str, Sequence[str]],
    read: Callable[[Path], Checkpoint],
) -> None:
    """Write the page as one file that contains all its pictures.

    Args:
        dataset: The raw dataset, whose images are drawn.
        workspace: Its workspace, with the plan and whatever has been trained so far.
        splits: Its folds.
        output: Path of the page.
        work: Directory of all results as the user gave it, for the next command.
        retraining: For each configuration whose cases have changed since it was trained, the options of `train` for
            its folds, or for the first of them.
        read: Reads a checkpoint, of which the weights are not needed.

    Raises:
        UserError: A file is missing or damaged.
    """
    plan, fingerprint = Plan.read(workspace.plan), Fingerprint.read(workspace.fingerprint)
    best = Best.read(workspace.best) if workspace.best.exists() else None
    trained = [name for name in plan.configurations if workspace.summary(name).exists()]
    configurations = best.configurations if best is not None else tuple(trained[:1])
    if best is None and plan.decision.configuration in trained:
        configurations = (plan.decision.configuration,)
    spaced = dataset.file_ending not in PICTURES or bool((fingerprint.median_spacing() != 1).any())
    results = None
    if configurations:
        results = read_results(dataset, plan, workspace, fingerprint, configurations, splits, best, spaced=spaced)
    outdated = best.outdated(workspace) if best is not None else None
    groups = len({dataset.groups.get(case.name, case.name) for case in fingerprint.cases})
    outgrown = next((name for name in plan.with_stages(configurations) if name in retraining), None)
    unit = "mm" if spaced else "pixels"
    paragraph, facts = methods(
        plan,
        fingerprint,
        workspace,
        configurations,
        folds=len(splits),
        complete=results is not None and not results.missing,
        groups=groups,
        outgrown=outgrown is not None,
        best=best,
        unit=unit,
        read=read,
    )
    page = render(
        "autocrossdim.report",
        "report.html.jinja",
        {
            "picture": formats.data_uri,
            "number": formats.number,
            "operations": formats.operations,
            "ends": formats.ends,
            "sizes": formats.sizes,
            "listed": listed,
            "between": formats.between,
            "described": described,
            "network": formats.network,
        },
        program=version("autocrossdim"),
        plan=plan,
        fingerprint=fingerprint,
        groups=groups,
        grouped=results is not None and any(row.group for row in results.rows),
        methods=paragraph,
        facts=facts,
        histograms=fingerprint_chart(fingerprint, plan.labels, unit, ct=plan.normalization[0].scheme == "ct"),
        presence={name: fingerprint.cases_with(values) for name, values in plan.labels.foreground.items()},
        splits=splits,
        best=best,
        outdated=outdated,
        next=next_step(
            plan,
            workspace,
            best,
            folds=len(splits),
            outdated=outdated is not None,
            retraining=None if outgrown is None else ["--config", outgrown, *retraining[outgrown]],
            validated=results is not None,
            missing=results.missing if results is not None else [],
            failed=list(hardly_segmented(results.summary)) if results is not None else [],
            configuration=next(iter(configurations), None),
            epochs=max((fold.epochs for fold in results.folds), default=0) if results is not None else 0,
            work=work,
        ),
        results=results,
        suggested=suggested(workspace, plan.labels, fingerprint.names),
        others=[name for name in trained if name not in configurations],
        unit=unit,
        legend_entries=LEGEND_ENTRIES,
        several=SEVERAL,
        students=[] if best is None else students(workspace, best),
        studies=study_sections(workspace),
    )
    write_text(output, page)
