"""`autocrossdim demo`: the full workflow on two small generated datasets."""

from pathlib import Path
from typing import Annotated

from autocrossdim.commands.signature import Option, command


@command()
def demo(
    *,
    output: Annotated[str | Path, Option("Directory to work in.", Path, ("-o", "--output"))] = Path(
        "autocrossdim_demo"
    ),
    data_only: Annotated[bool, Option("Write the datasets without training on them, as the tutorial does.")] = False,
) -> None:
    """Run the full workflow on two small generated datasets: plan, train two folds, predict, evaluate.

    Args:
        output: Directory for raw data, results and a picture.
        data_only: Write the datasets without training on them.
    """
    from autocrossdim.commands.workflow import run, write_datasets

    if data_only:
        write_datasets(Path(output))
    else:
        run(Path(output))
