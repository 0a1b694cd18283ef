"""`autocrossdim demo`: the full workflow on two small generated datasets."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from autocrossdim.commands.signature import Option, command

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autocrossdim.commands.demo_run import Demo


@command()
def demo(
    *,
    output: Annotated[str | Path, Option("Directory for data and results.", Path, ("-o", "--output"))] = Path(
        "autocrossdim_demo"
    ),
    data_only: Annotated[bool, Option("Only write the datasets, as in the tutorial.")] = False,
) -> "Demo":
    """Run the full workflow on two small generated datasets: plan, train two folds, predict, evaluate.

    Args:
        output: Directory for raw data, results and a picture.
        data_only: Write the datasets without training on them.

    Returns:
        The datasets and, unless `data_only`, the results on them.
    """
    from autocrossdim.commands.demo_run import Demo, run_demo, write_datasets

    return Demo(write_datasets(Path(output))) if data_only else run_demo(Path(output))


def present(demo: "Demo", **_: object) -> "Iterator[RenderableType]":
    """Yield what the command line prints: the results on each dataset, the decisions, and where the picture is.

    If only the datasets were written, yield the command that verifies the dataset of the tutorial.
    """
    from rich.table import Table

    from autocrossdim.commands.next_step import next_step
    from autocrossdim.report.terminal import summary_text

    if not demo.results:
        yield next_step("verify", demo.datasets[-1])
        return
    decisions = Table("dataset", "anisotropy", "decision", "patch", "Dice of the test cases")
    for each in demo.results:
        patch = " x ".join(map(str, each.patch_size))
        dice = f"{each.summary.foreground_mean['Dice']:.3f}"
        decisions.add_row(each.name, f"{each.anisotropy:.1f}", each.configuration, patch, dice)
        yield summary_text(each.summary)
    yield decisions
    yield f"Picture: {demo.picture}"
