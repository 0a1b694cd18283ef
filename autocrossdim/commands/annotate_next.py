"""`autocrossdim annotate_next`: which unlabelled scans to annotate next."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from autocrossdim.commands.arguments import AveragedOption, DatasetArgument, DeviceOption, WorkOption, several
from autocrossdim.commands.signature import Option, command
from autocrossdim.records.suggestions import MethodName, Suggestions
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autocrossdim.commands.project import Project
    from autocrossdim.data.dataset import Case
    from autocrossdim.inference.predictor import Predictor


@command()
def annotate_next(
    dataset: DatasetArgument,
    *,
    input: Annotated[
        str | Path | None,
        Option("Directory with unlabelled scans (default: imagesUn of the dataset).", Path | None, ("-i", "--input")),
    ] = None,
    number: Annotated[int, Option("Number of scans to choose.", flags=("-n", "--number"), min=1)] = 10,
    method: Annotated[MethodName, Option("Selection method: stratified entropy, or random.")] = "stratified",
    seed: Annotated[int, Option("Random seed.", min=0)] = 0,
    work: WorkOption = None,
    config: AveragedOption = (),
    mirroring: Annotated[bool, Option("Average over mirrored images (test-time augmentation).")] = True,
    device: DeviceOption = "auto",
) -> Suggestions:
    """Suggest which unlabelled scans to annotate next, and why; for sparse annotation, also which slices.

    The trained folds segment every scan. The segmentations are saved as drafts to correct.

    Args:
        dataset: Dataset directory, name or number; at least one fold must be trained.
        input: Directory of `CASE_0000.ext` files; `imagesUn` of the dataset if None. Training cases are left out.
        number: Number of scans to choose; all if there are fewer.
        method: `stratified` (entropy of the model, two of three scans by label) or `random`.
        seed: Random seed; the same seed gives the same list.
        work: Directory of all results.
        config: Configurations to average; those that `best.json` or the plan names if empty.
        mirroring: Average over mirrored versions of the image.
        device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.

    Returns:
        The list, which is also written to annotate_next.json and annotate_next.csv.

    Raises:
        UserError: There are no unlabelled scans, no fold is trained, or an image cannot be read.
    """
    from autocrossdim.commands.growth import open_unchanged
    from autocrossdim.inference.predictor import Predictor
    from autocrossdim.selection.annotate_next import annotate_next as choose_scans
    from autocrossdim.system.console import say
    from autocrossdim.system.lock import locked

    project = open_unchanged(dataset, work=work)
    predictor = Predictor.load(project.workspace.root, config=several(config), device=device, mirroring=mirroring)
    cases = _unlabelled(project, predictor, None if input is None else Path(input))
    for note in predictor.notes:
        say(note)
    say(predictor.case_score.sentence)
    with locked(project.workspace.lock, project.workspace.root):
        return choose_scans(
            predictor, project.dataset, project.workspace, cases, number=number, method=method, seed=seed
        )


def present(suggestions: Suggestions, *, dataset: str, work: Any, **_: object) -> "Iterator[RenderableType]":
    """Yield what the command line prints: the list, where the drafts are, and the next command."""
    from autocrossdim.commands.next_step import next_step
    from autocrossdim.report.terminal import suggestions_table

    yield suggestions_table(suggestions)
    yield f"Drafts to correct: {suggestions.suggestions[0].draft.parent}"
    if any(each.slices for each in suggestions.suggestions):
        yield (
            "The drafts have labels in all slices. Remove them from the slices that you do not check, because every "
            "slice with a label counts as annotated."
        )
    yield next_step("report", dataset, work=work)


def _unlabelled(project: "Project", predictor: "Predictor", folder: Path | None) -> "list[Case]":
    """Return the scans to choose from; training cases are left out.

    Raises:
        UserError: There are none.
    """
    from autocrossdim.inference.inputs import find_inputs
    from autocrossdim.system.console import say
    from autocrossdim.system.text import counted

    plan = predictor.plan
    if folder is None:
        found = project.dataset.unlabelled_cases()
        folder = project.dataset.path / "imagesUn"
    else:
        found = find_inputs(folder, len(plan.channel_names), plan.file_ending, incomplete=predictor.accepts_incomplete)
    annotated = {case.name for case in project.dataset.training_cases()}
    cases = [case for case in found if case.name not in annotated]
    if len(cases) < len(found):
        say(f"{counted(len(found) - len(cases), 'scan')} in {folder} skipped: already annotated.")
    if not cases:
        raise UserError(f"{folder}: no unlabelled scans. Add images there, or name another directory with -i.")
    return cases
