"""Pages written from templates; a missing value is an error, never left empty."""

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(package: str, name: str, filters: Mapping[str, Callable[..., Any]], **content: Any) -> str:
    """Return the filled template.

    Args:
        package: Package with the template, such as `autocrossdim.report`.
        name: File name of the template; in `.html.jinja`, values are escaped.
        filters: Filters of the template by name.
        content: Values by name.
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
