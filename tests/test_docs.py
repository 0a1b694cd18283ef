"""Commands that the documentation shows are commands that exist, with options that exist and values they take."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from autocrossdim.cli import app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
SHOWN = re.compile(r"^(?:    .*?(?:&& )?|.*?`)(autocrossdim [a-z_]+ [^`\n]*)", re.MULTILINE)


def commands() -> list[tuple[str, str]]:
    """Page and command, without the remark behind it."""
    return [
        (page.name, re.split(r"\s{2,}|\s#", line)[0].strip())
        for page in PAGES
        for line in SHOWN.findall(page.read_text(encoding="utf-8"))
    ]


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_shown_can_be_typed(page: str, line: str) -> None:
    group = typer.main.get_command(app)
    _, name, *words = shlex.split(line)
    command = group.commands[name]  # type: ignore[attr-defined]
    try:
        command.make_context(name, words)  # parses, and runs nothing
    except Exception as error:
        if type(error).__name__ != "MissingParameter":
            pytest.fail(f"{page}: {line}: {error}")


def test_the_documentation_shows_commands() -> None:
    names = {line.split()[1] for _, line in commands()}
    assert {"plan_and_preprocess", "train", "predict", "evaluate", "find_best", "export", "verify"} <= names
