"""The reference of the command line and of the settings, generated from the code.

A page includes it by a comment: `<!-- commands -->`, or `<!-- settings package.module:Class -->`.
"""

import html
import re
from collections.abc import Iterator
from importlib import import_module
from typing import Any, Literal, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Le, Lt
from mkdocs.structure.pages import Page
from pydantic import BaseModel

from autocrossdim.cli import app

SIGNS = {Ge: "≥", Gt: ">", Le: "≤", Lt: "<"}


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Replace the comments with the reference."""
    markdown = re.sub("<!-- commands -->", lambda _: "\n".join(_commands()), markdown)
    return re.sub(r"<!-- settings (\S+):(\S+) -->", lambda match: "\n".join(_settings(*match.groups())), markdown)


def _commands() -> Iterator[str]:
    """Yield a section for each command."""
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        context = command.make_context(f"autocrossdim {name}", [], resilient_parsing=True)
        yield f"## {name}\n\n{html.escape(command.help)}\n"
        yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
        yield "| argument or option | meaning |\n|---|---|"
        for parameter in command.get_params(context):
            names, meaning = parameter.get_help_record(context)
            yield _row([_code(names), _text(meaning)])
        yield ""


def _settings(module: str, name: str) -> Iterator[str]:
    """Yield a table of the fields of a pydantic model."""
    model: type[BaseModel] = getattr(import_module(module), name)
    yield "| setting | meaning | values | default |\n|---|---|---|---|"
    for field, info in model.model_fields.items():
        choices = [each for each in get_args(info.annotation) if get_origin(info.annotation) is Literal]
        limits = [
            f"{sign} {getattr(limit, kind.__name__.lower()):,.10g}"
            for limit in info.metadata
            for kind, sign in SIGNS.items()
            if isinstance(limit, kind)
        ]
        values = ", ".join(map(_value, choices) if choices else limits)
        yield _row([_code(field), _text(info.description), values, _value(info.get_default())])


def _value(value: object) -> str:
    return "" if value is None or value == () else _code(str(value).lower() if isinstance(value, bool) else str(value))


def _code(text: str) -> str:
    return f"<code>{_text(text)}</code>"


def _text(text: str | None) -> str:
    return html.escape(text or "").replace("|", "&#124;").replace("*", "&#42;").replace("_", "&#95;")


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
