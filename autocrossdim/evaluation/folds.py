"""The folds of a configuration, merged into one summary."""

from collections.abc import Sequence

from autocrossdim.evaluation.summary import merge
from autocrossdim.records.plan import Plan
from autocrossdim.records.summary import Summary
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.system.console import say


def summarise_folds(workspace: Workspace, configuration: str, *, folds: int) -> Summary | None:
    """Merge the validation summaries of all validated folds into the configuration's summary.json.

    Folds trained in separate processes may finish at the same time. Each process therefore merges again until no
    summary has changed meanwhile, so that the last one to write has seen them all.

    Args:
        workspace: Workspace of the dataset.
        configuration: Name of the configuration.
        folds: Number of folds in splits.json.

    Returns:
        The merged summary; None if no fold has been validated.

    Raises:
        UserError: A checkpoint or summary is damaged.
    """
    folders = [workspace.fold(configuration, fold) for fold in range(folds)]
    merged, summary = None, None
    while merged != (current := [_modified(folder) for folder in folders]):
        merged = current
        summary = _merge(workspace, configuration, folders)
    return summary


def _merge(workspace: Workspace, configuration: str, folders: Sequence[FoldFolder]) -> Summary | None:
    from autocrossdim.records.checkpoint import Checkpoint  # imports torch, which evaluating files does not need

    plan = Plan.read(workspace.plan)
    summaries = []
    for folder in folders:
        if not folder.summary.exists():
            continue
        other = plan.differences(Checkpoint.read(folder.latest).plan, [configuration])
        if not other:
            summaries.append(Summary.read(folder.summary))
        else:
            say(
                f"{folder.root}: trained under another plan (different: {', '.join(other)}), so it is left out of the "
                "summary. Train it again with --restart."
            )
    if not summaries:
        return None
    summary = merge(summaries)
    summary.write(workspace.summary(configuration))
    dice = summary.foreground_mean["Dice"]
    scope = "" if summary.scope is None else f", {summary.scope}"
    say(f"{configuration}, {len(summaries)} of {len(folders)} folds: mean Dice {dice:.3f}{scope}.")
    return summary


def _modified(folder: FoldFolder) -> int | None:
    return folder.summary.stat().st_mtime_ns if folder.summary.exists() else None
