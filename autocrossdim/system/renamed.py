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
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            for former in kwargs.keys() & names.keys():
                raise TypeError(f"{function.__qualname__}() has no '{former}': it is now called '{names[former]}'.")
            check_positional(function.__qualname__, signature, len(args))
            return function(*args, **kwargs)

        return call

    return decorate


def check_positional(function: str, signature: inspect.Signature, given: int) -> None:
    """Check that no keyword-only argument was given by position.

    Args:
        function: Name of the function, for the message.
        signature: Its signature.
        given: Number of arguments given by position.

    Raises:
        TypeError: Too many were given. The message names the keywords.
    """
    parameters = signature.parameters.values()
    positional = [parameter.name for parameter in parameters if parameter.kind in _POSITIONAL]
    if given > len(positional):
        subjects = ", ".join(name for name in positional if name not in ("self", "cls"))
        keywords = ", ".join(f"{parameter.name}=" for parameter in parameters if parameter.kind is _KEYWORD_ONLY)
        raise TypeError(f"{function}() takes only {subjects} by position. Name the others: {keywords}.")
