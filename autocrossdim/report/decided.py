"""The decision at the top of the report: what was chosen after cross-validation and what to do next."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autocrossdim.records.best import Best
from autocrossdim.records.plan import EPOCHS, Plan
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.text import command_line, listed


@dataclass(frozen=True)
class Next:
    """What to do next.

    Attributes:
        why: Sentence.
        command: Command line.
    """

    why: str
    command: str


def next_step(
    plan: Plan,
    workspace: Workspace,
    best: Best | None,
    *,
    folds: int,
    outdated: bool,
    added: int = 0,
    settings: Sequence[str] = (),
    validated: bool,
    missing: Sequence[str],
    failed: Sequence[str] = (),
    configuration: str | None = None,
    epochs: int = 0,
    work: str | Path | None,
) -> Next:
    """Return what to do next. The command names no directory, since the page may be sent to others.

    Args:
        plan: The plan.
        workspace: The workspace.
        best: What `find_best` chose, if it was run.
        folds: Number of folds; 0 with too few cases to hold any out.
        outdated: Whether checkpoints or the plan changed since then.
        added: Number of cases that were added after training.
        settings: Options of `train` with which the folds were trained.
        validated: Whether a configuration was validated.
        missing: Folds of that configuration that are not among the results.
        failed: Labels that it hardly segments.
        configuration: Its name, or the first of an ensemble; None if nothing was validated.
        epochs: Most epochs that a fold of it was trained for.
        work: Directory of all results as the user gave it; the command calls it WORK.
    """

    def command(name: str, *words: str) -> str:
        return command_line(name, plan.dataset, *words, work=None if work is None else "WORK")

    planned = plan.decision.configuration
    which = [] if configuration in (None, planned) else ["--config", str(configuration)]
    predict = command("predict", "-i", "IMAGES", "-o", "SEGMENTED")
    if added:
        those = "case that was" if added == 1 else f"{added} cases that were"
        resume = command("train", *which, "--weights", "previous", *settings)
        return Next(f"Train with the {those} added, starting from the present weights.", resume)
    if failed and not missing:
        names = listed([f"'{name}'" for name in failed])
        longer = command("train", *which, "--epochs", str(max(EPOCHS, 2 * epochs)))
        return Next(f"Train for longer: the model hardly segments {names}.", longer)
    if best is not None and not outdated:
        return Next("Segment new images, and look at the cases below first.", predict)
    if missing:
        return Next(f"Train and validate {', '.join(missing)}.", command("train"))
    if best is not None or validated:
        return Next("Choose the model and calibrate its probabilities on the held-out cases.", command("find_best"))
    if workspace.fold(planned, "all").latest.exists():
        return Next("Segment new images. Without held-out cases, nothing is known of the accuracy.", predict)
    return Next(f"Train {planned}.", command("train", *([] if folds else ["--fold", "all"])))
