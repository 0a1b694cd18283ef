"""What the folds of a configuration found out, together."""

from autocrossdim.evaluation.summary import Summary, merge
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.console import say
from autocrossdim.system.files import read_json, write_json


def summarise_folds(space: Workspace, configuration: str, folds: int) -> Summary | None:
    """Merge the validation summaries of the folds there are into the configuration's summary.json.

    Folds in processes of their own may end at the same time; whoever writes last has seen the summaries of all.

    Args:
        space: of the dataset.
        configuration: name.
        folds: how many there are in all.
    """
    files = [space.fold(configuration, fold).validation / "summary.json" for fold in range(folds)]
    merged, summary = None, None
    while merged != (there := [file.stat().st_mtime_ns if file.exists() else None for file in files]):
        merged = there
        summary = _merge(space, configuration, folds)
    return summary


def _merge(space: Workspace, configuration: str, folds: int) -> Summary | None:
    from autocrossdim.records.checkpoint import Checkpoint

    made = Plan.read(space.plan)
    done = []
    for fold in range(folds):
        folder = space.fold(configuration, fold)
        if not (folder.validation / "summary.json").exists():
            continue
        checkpoint = Checkpoint.read(folder.latest)
        if checkpoint.plan.configuration(configuration).trains_like(made.configuration(configuration)):
            done.append(read_json(folder.validation / "summary.json"))
        else:
            say(f"{folder.root}: trained under another plan, so it is left out of the summary.")
    if not done:
        return None
    summary = merge(done)
    write_json(space.model(configuration) / "summary.json", summary)
    say(f"{configuration}, {len(done)} of {folds} folds: mean Dice {summary['foreground_mean']['Dice']:.3f}.")
    return summary
