import numpy as np

from autocrossdim.report.drawn import chosen
from autocrossdim.report.rows import Row


def row(name: str, group: str | None, dice: float) -> Row:
    return Row(name, group, dice, {}, np.nan, (), ())


def test_each_patient_is_looked_at_once_among_the_worst() -> None:
    rows = [row("a", "p", 0.1), row("b", "p", 0.2), row("c", "q", 0.3), row("d", None, 0.4), row("e", None, 0.5)]
    rows += [row("f", "p", 0.6), row("g", "q", 0.7), row("h", None, np.nan)]
    assert chosen(rows, 2) == {"a": "lowest Dice", "c": "next lowest", "d": "median", "g": "highest Dice"}
    assert list(chosen(rows, 3)) == ["a", "c", "d", "g"]
    assert chosen([row("h", None, np.nan)], 3) == {}


def test_few_cases_are_all_chosen_in_the_end() -> None:
    rows = [row("a", "p", 0.1), row("b", "p", 0.2), row("c", "p", 0.3), row("d", None, np.nan)]
    assert chosen(rows, 1) == {"a": "lowest Dice", "b": "median", "c": "highest Dice"}
    assert chosen(rows, 1, at_least=4) == {"a": "lowest Dice", "b": "median", "c": "highest Dice", "d": ""}
    assert chosen(rows[:2], 1) == {"a": "lowest Dice", "b": "highest Dice"}
    assert chosen(rows[:1], 1) == {"a": "lowest Dice"}
