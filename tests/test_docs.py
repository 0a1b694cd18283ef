"""Every command and Python call in the documentation exists, with the options shown and values that they accept."""

import ast
import inspect
import re
import shlex
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer

import autocrossdim
from autocrossdim.cli import VERBOSITY, app

ROOT = Path(__file__).resolve().parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "datasets_template/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
MEASURED = sorted((ROOT / "benchmarks").rglob("*.md"))
"""Pages with the commands of measurements, indented."""
FENCED = re.compile(r"^( *)```([a-z]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(autocrossdim [a-z_]+[^`\n]*)`")
INDENTED = re.compile(r"^ {4}(autocrossdim [a-z_]+.*)$", re.MULTILINE)
COMMAND = re.compile(r"^(?:.*(?:&& |-m )|docker run .* )?(autocrossdim [a-z_]+.*?)(?:\s+#.*)?$", re.MULTILINE)


class Shown(NamedTuple):
    """Something that a page shows."""

    page: str
    text: str


def blocks(language: str) -> Iterator[Shown]:
    for page in PAGES:
        for _, name, block in FENCED.findall(page.read_text(encoding="utf-8")):
            if name == language:
                yield Shown(page.name, textwrap.dedent(block))


def commands() -> list[Shown]:
    fenced = [
        Shown(page, line)
        for language in ("bash", "console")
        for page, block in blocks(language)
        for line in COMMAND.findall(block.replace("\\\n", " "))
    ]
    indented = [
        Shown(page.relative_to(ROOT).as_posix(), line)
        for page in MEASURED
        for line in INDENTED.findall(page.read_text(encoding="utf-8").replace("\\\n", " "))
    ]
    inline = [Shown(page.name, line) for page in PAGES for line in INLINE.findall(page.read_text(encoding="utf-8"))]
    return fenced + indented + inline


def calls() -> list[Shown]:
    return [
        Shown(page, ast.unparse(call))
        for page, block in blocks("python")
        for call in ast.walk(ast.parse(block))
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith("autocrossdim.")
    ]


@pytest.mark.parametrize("shown", commands(), ids=lambda shown: f"{shown.page}: {shown.text}")
def test_a_command_parses(shown: Shown) -> None:
    group = typer.main.get_command(app)
    _, name, *words = (word for word in shlex.split(shown.text) if word not in VERBOSITY)
    command = group.commands[name]  # type: ignore[attr-defined]
    try:
        command.make_context(name, words)  # parses without running anything
    except Exception as error:
        # Inline code may name a command without its arguments.
        if type(error).__name__ != "MissingParameter":
            pytest.fail(f"{shown.page}: {shown.text}: {error}")


@pytest.mark.parametrize("shown", calls(), ids=lambda shown: f"{shown.page}: {shown.text}")
def test_a_python_call_fits_the_signature(shown: Shown) -> None:
    call = ast.parse(shown.text, mode="eval").body
    assert isinstance(call, ast.Call)
    function = autocrossdim
    for name in ast.unparse(call.func).split(".")[1:]:
        function = getattr(function, name)
    keywords = {keyword.arg: None for keyword in call.keywords if keyword.arg is not None}
    inspect.signature(function).bind(*call.args, **keywords)  # type: ignore[arg-type]


def test_commands_and_calls_are_found() -> None:
    names = {shown.text.split()[1] for shown in commands()}
    assert {"run", "plan_and_preprocess", "train", "predict", "evaluate", "find_best", "export", "verify"} <= names
    assert {"docker.md", "benchmarks/results/studies.md"} <= {shown.page for shown in commands()}
    assert any(shown.text.startswith("autocrossdim.train(") for shown in calls())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing, f"{page.name} links to files that do not exist: {missing}"


def test_the_reference_includes_commands_that_have_the_name_of_a_package() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    for name in autocrossdim.__all__:
        if (ROOT / "autocrossdim" / name).is_dir():  # which the generator documents in place of the function
            assert f"::: autocrossdim.commands.{name}.{name}\n" in page


def test_the_hooks_use_the_linter_of_the_test_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pinned,) = (each for each in project["optional-dependencies"]["test"] if each.startswith("ruff=="))
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    assert f"rev: v{pinned.removeprefix('ruff==')}\n" in hooks
