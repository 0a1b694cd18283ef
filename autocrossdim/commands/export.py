"""`autocrossdim export`: pack trained folds into one file."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from autocrossdim.commands.arguments import Fold, WorkOption, several
from autocrossdim.commands.signature import Option, command
from autocrossdim.system.errors import UserError


@command(renamed={"folds": "fold", "configurations": "config"})
def export(
    dataset: Annotated[
        str | Path | int, Option("Dataset trained in --work, or a model directory.", str, metavar="DATASET")
    ],
    output: Annotated[
        str | Path | None,
        Option("File to write; its name must end in .acd. Not needed with --hub.", Path | None, ("-o", "--output")),
    ] = None,
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
        Option(
            "Directory for ONNX files of the networks; their outputs are compared with PyTorch's.",
            Path | None,
            metavar="FOLDER",
        ),
    ] = None,
    hub: Annotated[
        str | Path | None,
        Option("Directory to write for a model repository on the Hugging Face Hub.", Path | None, metavar="FOLDER"),
    ] = None,
    licence: Annotated[
        str | None,
        Option("Licence of the model for --hub, as the hub names it, such as apache-2.0 (default: unknown)."),
    ] = None,
) -> Path:
    """Pack trained folds into one file to share, which `predict FILE` uses directly.

    Args:
        dataset: Dataset trained in `work`, or a model directory.
        output: File to write; its name must end in `.acd`. None with `hub`.
        work: Directory of all results.
        config: Configurations to export; those that `best.json` or the plan names if empty.
        fold: Folds to export; all trained folds if empty.
        onnx: Directory for one ONNX file per configuration and fold, each compared with PyTorch.
        hub: Directory for `model.acd`, README.md and config.json, to upload as a model repository. Nothing is uploaded.
        licence: Licence under which the model is shared, as the hub names it; "unknown" if None. Only with `hub`.

    Returns:
        Path of the file.

    Raises:
        UserError: Nothing is trained, the folds belong to different plans, packages that ONNX needs are missing,
            neither or both of `output` and `hub` are given, `licence` without `hub`, or another process writes to
            `hub`.
    """
    from autocrossdim.models.hub import FILE
    from autocrossdim.models.hub_folder import UNKNOWN, check_licence, repository_to_write, write_hub_files
    from autocrossdim.models.onnx import require_packages, write_networks
    from autocrossdim.models.pack import pack
    from autocrossdim.system.console import say

    target = output if hub is None else Path(hub) / FILE
    if target is None or (output is not None and hub is not None):
        raise UserError("Give either -o FILE.acd, or --hub FOLDER for a repository on the Hugging Face Hub.")
    if licence is not None and hub is None:
        raise UserError("--licence is for the repository on the hub. Add --hub FOLDER, or omit --licence.")
    licence = UNKNOWN if licence is None else licence
    check_licence(licence)
    if onnx is not None:
        require_packages()
    output = Path(target)
    with nullcontext() if hub is None else repository_to_write(Path(hub)):
        file = pack(dataset, output, work=work, fold=several(fold), config=several(config))
        folds = ", ".join(f"{name} {number}" for name, numbers in file.folds.items() for number in numbers)
        size = output.stat().st_size / 1e6
        say(f"{output}: {folds}; {size:.1f} MB. MODEL_CARD.md inside describes the model and its intended use.")
        for network in write_networks(file, Path(onnx)) if onnx is not None else ():
            say(
                f"{network.path}: differs from PyTorch by at most {network.difference:.1g} where logits reach "
                f"{network.largest:.2g}."
            )
        if hub is not None:
            write_hub_files(file, Path(hub), licence=licence)
            say(f"{hub}: README.md is the page of the repository. Review and complete it before you upload it.")
    return output


def present(file: Path, *, hub: Path | None, **_: object) -> Iterator[str]:
    """Yield the next command. The files written were listed earlier."""
    from autocrossdim.commands.next_step import next_step

    if hub is not None:
        yield f"Next: hf upload OWNER/NAME {shlex.quote(str(hub))}"
        return
    yield next_step("predict", file, "-i", "IMAGES", "-o", "SEGMENTED")
