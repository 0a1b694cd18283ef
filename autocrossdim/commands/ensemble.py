"""`autocrossdim ensemble`: average stored probabilities of several models."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from autocrossdim.commands.arguments import OutputOption
from autocrossdim.commands.signature import Option, command
from autocrossdim.system.errors import UserError


@command()
def ensemble(
    folders: Annotated[
        Sequence[str | Path],
        Option("Directories written by `predict --probabilities`.", list[Path], metavar="FOLDER..."),
    ],
    output: OutputOption,
    *,
    dataset: Annotated[str | Path, Option("Dataset whose dataset.json names the labels.", str)],
) -> list[Path]:
    """Average the stored probabilities of several models into segmentations.

    Args:
        folders: At least two directories with `CASE.npz` and `CASE.ext` of the same cases.
        output: Directory for the segmentations, each on the grid of its image.
        dataset: Dataset whose dataset.json names the labels and the file format.

    Returns:
        Paths of the segmentations.

    Raises:
        UserError: The directories hold different cases, or probabilities of different labels or grids.
    """
    from autocrossdim.data.dataset import find_dataset, load_dataset
    from autocrossdim.data.images import write_label
    from autocrossdim.inference.stored import average_stored, stored_cases
    from autocrossdim.system.console import track

    sources, output = [Path(folder) for folder in folders], Path(output)
    if len(sources) < 2:
        raise UserError("An ensemble needs at least two directories.")
    if output.resolve() in {source.resolve() for source in sources}:
        raise UserError(f"-o {output}: is one of the directories to average. Choose another one.")
    raw = load_dataset(find_dataset(dataset))
    paths = []
    cases = stored_cases(sources)
    for case in track(cases, "Averaging", len(cases)):
        label, geometry = average_stored(sources, case, labels=raw.labels, ending=raw.file_ending)
        paths.append(output / f"{case}{raw.file_ending}")
        write_label(label, geometry, paths[-1])
    return paths
