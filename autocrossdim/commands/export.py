"""`autocrossdim export`: pack trained folds into one file."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

from autocrossdim.commands.arguments import Fold, WorkOption, several
from autocrossdim.commands.signature import Option, command


@command(renamed={"folds": "fold", "configurations": "config"})
def export(
    dataset: Annotated[str | Path, Option("Dataset trained in --work, or a model directory.", str, metavar="DATASET")],
    output: Annotated[str | Path, Option("File to write; its name must end in .acd.", Path, ("-o", "--output"))],
    *,
    work: WorkOption = None,
    config: Annotated[
        str | Sequence[str],
        Option("Configuration to export; repeat for several (default: what predict would use).", list[str]),
    ] = (),
    fold: Annotated[
        Fold | Sequence[Fold], Option("Fold to export; repeat for several (default: all trained folds).", list[str])
    ] = (),
    onnx: Annotated[
        str | Path | None,
        Option("Directory for the networks as ONNX files, compared with PyTorch.", Path | None, metavar="FOLDER"),
    ] = None,
) -> Path:
    """Pack trained folds into one safe file to share, which `predict FILE` uses as it is.

    Args:
        dataset: Dataset trained in `work`, or a model directory.
        output: File to write; its name must end in `.acd`.
        work: Directory of all results.
        config: Configurations to export; those that `best.json` or the plan names if empty.
        fold: Folds to export; all trained folds if empty.
        onnx: Directory for one ONNX file per configuration and fold, each compared with PyTorch.

    Returns:
        Path of the file.

    Raises:
        UserError: Nothing is trained, the folds belong to different plans, or packages that ONNX needs are missing.
    """
    from autocrossdim.models.onnx import require_packages, write_networks
    from autocrossdim.models.pack import pack
    from autocrossdim.system.console import say

    output = Path(output)
    if onnx is not None:
        require_packages()
    file = pack(dataset, output, work=work, fold=several(fold), config=several(config))
    folds = ", ".join(f"{name} {number}" for name, numbers in file.folds.items() for number in numbers)
    size = output.stat().st_size / 1e6
    say(f"{output}: {folds}; {size:.1f} MB. MODEL_CARD.md inside describes the model and its intended use.")
    for network in write_networks(file, Path(onnx)) if onnx is not None else ():
        say(
            f"{network.path}: differs from PyTorch by at most {network.difference:.1g} where logits reach "
            f"{network.largest:.2g}."
        )
    return output


def present(file: Path, **_: object) -> Iterator[str]:
    """Yield the next command: what is in the file was shown when it was written."""
    from autocrossdim.commands.next_step import next_step

    yield next_step("predict", file, "-i", "IMAGES", "-o", "SEGMENTED")
