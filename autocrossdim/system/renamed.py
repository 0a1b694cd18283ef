"""Errors for calls that were written for an earlier version."""

import functools
import inspect
from collections.abc import Callable
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY


def renamed(**names: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Decorate a function whose parameters were renamed or made keyword-only.

    Calls with a former name, or with keyword-only arguments given by position, end in a TypeError that gives the
    present names.

    Args:
        **names: Former name -> present name of each renamed parameter.
    """

    def decorate(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        parameters = inspect.signature(function).parameters.values()
        positional = [parameter.name for parameter in parameters if parameter.kind in _POSITIONAL]
        subjects = ", ".join(name for name in positional if name not in ("self", "cls"))
        keywords = ", ".join(f"{parameter.name}=" for parameter in parameters if parameter.kind is _KEYWORD_ONLY)

        @functools.wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            for former in kwargs.keys() & names.keys():
                raise TypeError(f"{function.__qualname__}() has no '{former}': it is now called '{names[former]}'.")
            if len(args) > len(positional):
                raise TypeError(
                    f"{function.__qualname__}() takes only {subjects} by position. Name the others: {keywords}."
                )
            return function(*args, **kwargs)

        return call

    return decorate
