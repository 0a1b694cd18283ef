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
) -> None:
    """Run the full workflow on two small generated datasets: plan, train two folds, predict, evaluate.

    Args:
        output: Directory for raw data, results and a picture.
    """
    from autocrossdim.commands.workflow import run

    run(Path(output))
