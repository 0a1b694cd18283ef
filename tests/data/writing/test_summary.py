"""A table of all cases that several processes write at the same time."""

from pathlib import Path

import pytest
from pydantic import BaseModel

from autocrossdim.data.writing.summary import summarise
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import write_json


class Size(BaseModel):
    case: str
    ml: float = float("nan")


def test_cases_that_another_process_adds_or_changes_meanwhile_are_in_the_table(tmp_path: Path) -> None:
    write_json(tmp_path / "b_size.json", {"case": "b", "ml": 1})
    write_json(tmp_path / "b.json", {"another": "kind of file"})
    meanwhile = [{"case": "a"}, {"case": "a", "ml": 2}]
    tables = []

    def write(sizes: list[Size]) -> None:
        if meanwhile:
            write_json(tmp_path / "a_size.json", meanwhile.pop(0))
        tables.append([(size.case, size.ml) for size in sizes])

    assert [size.case for size in summarise(Size, tmp_path, "_size.json", write)] == ["a", "b"]
    assert (len(tables), tables[0], tables[-1]) == (3, [("b", 1)], [("a", 2), ("b", 1)])


def test_an_unknown_number_does_not_count_as_a_change(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"case": "a"})
    tables: list[list[Size]] = []
    summarise(Size, tmp_path, ".json", tables.append)
    assert len(tables) == 1


def test_damaged_files_are_named_and_unfinished_ones_left_out(tmp_path: Path) -> None:
    (tmp_path / ".12345678.a.json").write_text("{", encoding="utf-8")
    tables: list[list[Size]] = []
    assert summarise(Size, tmp_path, ".json", tables.append) == []
    assert tables == [[]]
    (tmp_path / "a.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"a\.json: damaged \(.*\)\. Delete it"):
        summarise(Size, tmp_path, ".json", tables.append)
