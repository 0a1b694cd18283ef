"""Commands are Python functions whose signatures also describe the command line."""

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from autocrossdim.system.errors import UserError, first_fault
from autocrossdim.system.renamed import check_positional

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Option:
    """How a parameter appears on the command line, as metadata of its annotation.

    Attributes:
        help: One sentence.
        type: Type on the command line, where Python accepts more than one.
        flags: Names on the command line, if not `--name`; a parameter before the keyword-only ones that has flags is
            an option, one without is an argument.
        metavar: Placeholder for the value in the help.
        min: Smallest value.
        max: Largest value.
    """

    help: str
    type: Any = None
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    min: float | None = None
    max: float | None = None


def command(
    *,
    options: type[BaseModel] | None = None,
    without: Collection[str] = (),
    renamed: Mapping[str, str] | None = None,
) -> Callable[[Function], Function]:
    """Mark a function as a command.

    Args:
        options: Model whose fields become keyword parameters in place of the function's `**options`.
        without: Fields that do not.
        renamed: Former name -> present name of its parameters, for the error message.

    Returns:
        A decorator. The decorated function refuses unknown keywords with a TypeError that names the nearest one, and
        numbers and switches of another type or out of bounds with a UserError. Its signature in `help()` and notebooks
        has plain types; `declared` returns the one with the options.
    """

    def decorate(function: Function) -> Function:
        signature = _with_fields(inspect.signature(function), options, without)

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for name in kwargs:
                if name not in signature.parameters:
                    raise TypeError(_unknown(function.__name__, name, signature, renamed or {}, options))
            check_positional(function.__name__, signature, len(args))
            kwargs = {name: _plain_number(value) for name, value in kwargs.items()}
            for name, value in kwargs.items():
                _check_value(signature.parameters[name], value)
            return function(*args, **kwargs)

        call.declared = signature  # type: ignore[attr-defined]
        call.__signature__ = _plain(signature)  # type: ignore[attr-defined]
        call.__doc__ = _with_descriptions(function.__doc__ or "", options, without)
        return call  # type: ignore[return-value]

    return decorate


def _plain_number(value: Any) -> Any:
    """Return a number of numpy, which is not imported here, as Python's; anything else unchanged."""
    return value.item() if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0 else value


def _check_value(parameter: inspect.Parameter, value: Any) -> None:
    """Check a number or a switch, as the command line does.

    Raises:
        UserError: It has another type, or is out of bounds.
    """
    annotation, option = get_args(parameter.annotation)[:2]
    kinds = get_args(annotation) or (annotation,)
    if not {int, float, bool} & set(kinds) or not set(kinds) <= {int, float, bool, NoneType}:
        return
    allowed: Any = annotation
    if value is not None:
        allowed = Annotated[annotation, Field(strict=True, ge=option.min, le=option.max)]
    try:
        TypeAdapter(allowed).validate_python(value)
    except ValidationError as error:
        raise UserError(f"{parameter.name}={value!r}: {first_fault(error).rpartition(': ')[2]}.") from error


def declared(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of a command, each of whose parameters is annotated with an `Option`."""
    signature: inspect.Signature = function.declared  # type: ignore[attr-defined]
    return signature


def _plain(signature: inspect.Signature) -> inspect.Signature:
    """Return the signature with plain types, without options and bounds."""

    def hints() -> None: ...

    hints.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    types = get_type_hints(hints)
    return signature.replace(parameters=[p.replace(annotation=types[p.name]) for p in signature.parameters.values()])


def _with_fields(
    signature: inspect.Signature, options: type[BaseModel] | None, without: Collection[str]
) -> inspect.Signature:
    """Return the signature with the fields of `options` in place of its `**options`."""
    if options is None:
        return signature
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    fields = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.get_default(),
            annotation=Annotated[field.annotation, Option(field.description or "")],
        )
        for name, field in options.model_fields.items()
        if name not in without
    ]
    return signature.replace(parameters=[*own, *fields])


def _with_descriptions(text: str, options: type[BaseModel] | None, without: Collection[str]) -> str:
    """Return a docstring with the descriptions of the fields of `options` in place of the one of `**options`."""
    if options is None:
        return text
    fields = {name: field.description for name, field in options.model_fields.items() if name not in without}

    def lines(found: re.Match[str]) -> str:
        return "\n".join(f"{found[1]}{name}: {description}" for name, description in fields.items())

    return re.sub(r"^( *)\*\*options: .*$", lines, text, flags=re.MULTILINE)


def _unknown(
    function: str,
    name: str,
    signature: inspect.Signature,
    renamed: Mapping[str, str],
    options: type[BaseModel] | None,
) -> str:
    if name in renamed:
        return f"{function}() has no parameter '{name}': it is now called '{renamed[name]}'."
    if options is not None and name == "options":  # in version 0.1, an instance of the model
        first = next(iter(options.model_fields))
        return (
            f"{function}() has no parameter 'options': give the fields of {options.__name__} as keywords, such as "
            f"{first}=..."
        )
    nearest = difflib.get_close_matches(name, signature.parameters, 1)
    hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
    return f"{function}() has no parameter '{name}'.{hint} Parameters: {', '.join(signature.parameters)}."
