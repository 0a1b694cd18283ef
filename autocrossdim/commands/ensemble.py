"""`autocrossdim ensemble`: average stored probabilities of several models."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from autocrossdim.commands.arguments import FormatOption, OutputOption
from autocrossdim.commands.signature import Option, command
from autocrossdim.data.writing.formats import DEFAULT, find
from autocrossdim.system.errors import UserError


@command()
def ensemble(
    folders: Annotated[
        Sequence[str | Path],
        Option("Directories written by `predict --probabilities`.", list[Path], metavar="FOLDER"),
    ],
    output: OutputOption,
    *,
    dataset: Annotated[str | Path | int, Option("Dataset whose dataset.json names the labels.", str)],
    format: FormatOption = DEFAULT,
) -> list[Path]:
    """Average the stored probabilities of several models into segmentations.

    Args:
        folders: At least two directories with `CASE.npz` and `CASE.ext` of the same cases.
        output: Directory for the segmentations, each on the grid of its image.
        dataset: Dataset whose dataset.json names the labels and the file format.
        format: Format of the segmentations: `image`, `seg.nrrd` or `bids`.

    Returns:
        Paths of the segmentations.

    Raises:
        UserError: The directories hold different cases, or probabilities of different labels or grids, `output` has
            the name of a file, or another process writes to it.
    """
    from autocrossdim.data.dataset import Case, load_dataset
    from autocrossdim.data.find import find_dataset
    from autocrossdim.data.writing.results import Results
    from autocrossdim.inference.inputs import make_output
    from autocrossdim.inference.stored import average_stored, by_calibration, stored_cases
    from autocrossdim.system.console import track, warn
    from autocrossdim.system.lock import LOCK, locked
    from autocrossdim.system.text import listed

    sources, output = [Path(folder) for folder in folders], Path(output)
    if len(sources) < 2:
        raise UserError("An ensemble needs at least two directories.")
    if output.resolve() in {source.resolve() for source in sources}:
        raise UserError(f"-o {output}: is one of the directories to average. Choose another one.")
    repeated = [folder for folder, number in Counter(source.resolve() for source in sources).items() if number > 1]
    if repeated:
        warn(f"{listed(repeated)}: given more than once, so it weighs more in the average. Give each directory once.")
    loaded = load_dataset(find_dataset(dataset))
    cases = [Case(name, (), None) for name in stored_cases(sources)]
    chosen = find(format)
    chosen.check(cases)
    make_output(output)
    calibrated, others = by_calibration(sources, cases[0].name)
    if calibrated and others:
        warn(
            f"{listed(others)}: the probabilities are not calibrated, but those in {listed(calibrated)} are "
            "(`find_best` chose these models), so an overconfident model may dominate the average. To average "
            "configurations of one dataset, name them with --config in one `predict`."
        )
    results = Results(output, loaded.labels, loaded.file_ending, chosen, codes=loaded.codes)
    with locked(output / LOCK, output):
        for case in track(cases, "Averaging", len(cases)):
            label, geometry = average_stored(sources, case.name, labels=loaded.labels, ending=loaded.file_ending)
            results.write(case, label, geometry)
        results.finish(cases)
    return [results.path(case) for case in cases]


def present(segmentations: Sequence[Path], *, output: Path, **_: object) -> Iterator[str]:
    """Yield what the command line prints: how many segmentations there are, and where."""
    from autocrossdim.system.text import counted

    yield f"{output}: {counted(len(segmentations), 'segmentation')}."
