"""The folds of a configuration, merged into one summary."""

from collections.abc import Collection, Mapping, Sequence

from autocrossdim.data.splits import Split
from autocrossdim.evaluation.summary import merge
from autocrossdim.records.plan import Plan
from autocrossdim.records.summary import Summary
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.system.console import say
from autocrossdim.system.text import listed


def summarise_folds(workspace: Workspace, configuration: str, splits: Sequence[Split]) -> Summary | None:
    """Merge the validation summaries of all validated folds into the configuration's summary.json.

    Folds trained in separate processes may finish at the same time. Each process therefore merges again until no
    summary has changed meanwhile, so that the last one to write has seen them all.

    Args:
        workspace: Workspace of the dataset.
        configuration: Name of the configuration.
        splits: Folds in splits.json. Cases that a fold no longer validates are left out, and missing ones are named.

    Returns:
        The merged summary; None if no fold has been validated.

    Raises:
        UserError: A checkpoint or summary is damaged.
    """
    folders = {workspace.fold(configuration, fold): split.val for fold, split in enumerate(splits)}
    merged, summary = None, None
    while merged != (current := [_modified(folder) for folder in folders]):
        merged = current
        summary = _merge(workspace, configuration, folders)
    return summary


def _merge(workspace: Workspace, configuration: str, folders: Mapping[FoldFolder, Collection[str]]) -> Summary | None:
    from autocrossdim.records.checkpoint import Checkpoint  # imports torch, which evaluating files does not need

    plan = Plan.read(workspace.plan)
    summaries = {}
    for folder, cases in folders.items():
        if not folder.summary.exists():
            continue
        other = plan.differences(Checkpoint.read(folder.latest).plan, [configuration])
        if not other:
            summaries[folder] = _of_cases(folder, cases, plan)
        else:
            say(
                f"{folder.root}: trained under another plan (different: {', '.join(other)}), so it is left out of the "
                "summary. Train it again with --restart."
            )
    summaries = {folder: summary for folder, summary in summaries.items() if summary.metric_per_case}
    if not summaries:
        return None
    warnings = [
        f"{folder.root.name.replace('_', ' ')}: {sentence}"
        for folder, summary in summaries.items()
        for sentence in summary.warnings
    ]
    summary = merge(list(summaries.values())).model_copy(update={"warnings": tuple(warnings)})
    summary.write(workspace.summary(configuration))
    dice = summary.foreground_mean["Dice"]
    scope = "" if summary.scope is None else f", {summary.scope}"
    say(f"{configuration}, {len(summaries)} of {len(folders)} folds: mean Dice {dice:.3f}{scope}.")
    return summary


def _of_cases(folder: FoldFolder, cases: Collection[str], plan: Plan) -> Summary:
    """Return the summary of a fold for its present validation cases; cases without a result are named."""
    summary = Summary.read(folder.summary)
    results = {case.file.removesuffix(plan.file_ending): case for case in summary.metric_per_case}
    if missing := sorted(set(cases) - results.keys()):
        say(
            f"{folder.root}: {listed(missing)} {'has' if len(missing) == 1 else 'have'} no result yet. Run "
            "`autocrossdim train` for this fold to validate all of its cases."
        )
    present = tuple(case for name, case in results.items() if name in cases)
    return summary.model_copy(update={"metric_per_case": present})  # `merge` computes means from the cases


def _modified(folder: FoldFolder) -> int | None:
    return folder.summary.stat().st_mtime_ns if folder.summary.exists() else None
