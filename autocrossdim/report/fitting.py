"""Tables for terminals of any width: side by side where that fits, else as a list."""

from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


@dataclass(frozen=True)
class Fitting:
    """A table that is printed as a list where its columns are so narrow that numbers and words would be broken.

    Attributes:
        table: The table. Its first column names the rows.
    """

    table: Table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table or the list, for rich."""
        # Each minimum is that of the longest word. Measured without a limit, because rich returns no more than that.
        needed = Measurement.get(console, options.update(max_width=10_000), self.table).minimum
        yield self.table if needed <= options.max_width else _list(self.table)


def _list(table: Table) -> Table:
    """Return a table as a list: for each row its name, and below it one line per further column.

    What a column without a heading says follows the name in parentheses.
    """
    names, *columns = table.columns
    shown = Table(title=table.title, title_justify="left", box=box.SIMPLE_HEAD, padding=0, show_header=False)
    shown.add_column(overflow="fold")
    shown.add_column(overflow="fold")
    for row, name in enumerate(names.cells):
        values = [(" ".join(str(column.header).split()), list(column.cells)[row]) for column in columns]
        remarks = "".join(f" ({value})" for heading, value in values if not heading and str(value))
        shown.add_row(Text(f"{name}{remarks}"), "", style="bold")
        for heading, value in values:
            if heading and str(value):
                shown.add_row(Text(f"  {heading}  "), value)
    return shown
