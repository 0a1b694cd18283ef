"""The tutorial can be followed: all of its commands and Python run in order, on the same data, with little training."""

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial"
LITTLE = {
    "plan_and_preprocess": ("--encoder", "test_efficientnet", "--no-trial"),
    "train": ("--epochs", "1", "--set", "steps_per_epoch=1", "--set", "workers=0"),
}
"""What is added to a command here, so that it takes seconds."""

Succeed = Callable[..., str]


def blocks(page: str, language: str) -> list[str]:
    text = (TUTORIAL / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.mark.slow
def test_the_tutorial_leads_to_a_report_and_goes_on_in_python(
    succeed: Succeed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTOCROSSDIM_WORK", raising=False)
    printed = ""
    for line in "".join(blocks("from-eight-scans-to-a-report.md", "bash")).splitlines():
        program, command, *words = shlex.split(line)
        assert program == "autocrossdim"
        printed += succeed(command, *without_time(words), *LITTLE.get(command, ()))
    decision = next(block for block in blocks("from-eight-scans-to-a-report.md", "text") if "Decision" in block)
    assert [line for line in decision.splitlines() if line not in printed] == []
    assert "No problems found." in printed
    assert (tmp_path / "autocrossdim_work" / "Dataset902_Chambers" / "report.html").is_file()
    assert len(list((tmp_path / "tutorial" / "segmented").glob("case_*.nii.gz"))) == 2

    mpl.use("Agg")
    names: dict[str, object] = {}
    for block in blocks("python.md", "python"):
        exec(block, names)
    assert (tmp_path / "tutorial" / "uncertainty.png").is_file()


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    notebook = json.loads((TUTORIAL / "notebook.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    little = {
        'encoder="test_efficientnet"': 'encoder="test_efficientnet", trial=False',
        'max_time="1m", set={"workers": 0}': 'epochs=1, set={"steps_per_epoch": 1, "workers": 0}',
    }
    names: dict[str, object] = {}
    for cell in cells:
        for usual, changed in little.items():
            cell = cell.replace(usual, changed)
        exec(cell, names)
    assert "steps_per_epoch" not in "".join(cells)
    assert (tmp_path / "notebook" / "work" / "Dataset902_Chambers" / "report.html").is_file()


def without_time(words: list[str]) -> list[str]:
    """Return the words without `--max-time` and its value: a time limit would be the time that a test takes."""
    if "--max-time" not in words:
        return words
    at = words.index("--max-time")
    return [*words[:at], *words[at + 2 :]]
