"""Pages written from templates; a value that is missing is a fault of ours, never an empty place."""

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(package: str, name: str, filters: Mapping[str, Callable[..., Any]], **content: Any) -> str:
    """Return the filled template.

    Args:
        package: Package that contains it, such as `autocrossdim.export`.
        name: Name of its file; in `.html.jinja`, inserted text is escaped.
        filters: Filters that it uses, by name.
        content: Values to insert, by name.
    """
    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=name.endswith(".html.jinja"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment.get_template(name).render(**content)
