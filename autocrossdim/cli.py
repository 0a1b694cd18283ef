"""The command line, derived from the signatures of the commands. Nothing here imports torch before a command runs."""

import ctypes
import inspect
import io
import json
import logging
import os
import platform
import shlex
import signal
import sys
import traceback
import types
import typing
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Literal, NoReturn

import typer

from autocrossdim.commands import COMMANDS
from autocrossdim.commands.signature import declared
from autocrossdim.system.errors import Interrupted, UserError, from_os_error, in_words

VERBOSITY = ("-q", "--quiet", "-v", "--verbose")

# Options of nnU-Net that have another name here.
_NNUNET = {
    "-c": "--config",
    "-d": "--dataset",
    "-f": "--fold",
    "-np": "--processes",
    "-pl": "--planner",
    "-device": "--device",
    "-num_gpus": "--devices",
    "-pretrained_weights": "--weights",
    "--disable_tta": "--no-mirroring",
    "--save_probabilities": "--probabilities",
}
# Options without a counterpart in the same command: of nnU-Net, and `--show` of version 0.1.
_NO_COUNTERPART = {
    "-tr": "The trainer is chosen when planning: plan_and_preprocess --trainer.",
    "-chk": "The final weights of each fold are used.",
    "-step_size": "Tiles overlap by half, as by default in nnU-Net.",
    "--c": "The same command again resumes.",
    "--continue_prediction": "The same command again resumes.",
    "--show": "`autocrossdim plan DATASET` shows the decision and both candidates.",
    "--npz": "It is not needed: find_best computes the probabilities it needs.",
}

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Medical image segmentation with few annotated scans: plan, train, predict, and assess the reliability.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"autocrossdim {version('autocrossdim')}")
        raise typer.Exit


@app.callback()
def _global_options(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    quiet: Annotated[bool, typer.Option(*VERBOSITY[:2], help="Show warnings and results only.")] = False,
    verbose: Annotated[
        bool,
        typer.Option(*VERBOSITY[2:], help="Also show versions, directories, and where in the code an error arose."),
    ] = False,
) -> None:
    """Options of every command."""
    if quiet or verbose:
        from autocrossdim.system.console import logger, trace

        logger.setLevel(logging.WARNING if quiet else logging.DEBUG)
        versions = ", ".join(f"{name} {version(name)}" for name in ("autocrossdim", "torch", "timm", "SimpleITK"))
        trace(f"{versions}, Python {platform.python_version()}, {platform.platform()}.")


def _add(name: str) -> None:
    """Add the command of that name: its function takes the options, its `present`, if any, yields what is printed."""
    module = import_module(f"autocrossdim.commands.{name}")
    function = getattr(module, name)
    present = getattr(module, "present", None)

    parameters = declared(function).parameters.values()
    subjects = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]

    def run(context: typer.Context, **words: Any) -> None:
        from autocrossdim.system.console import is_first_process

        as_json = words.pop("json", False)
        # As in Python, an option that was not typed is not given.
        sources = {name: getattr(context.get_parameter_source(name), "name", "") for name in words}
        options = {name: words[name] for name in words if name not in subjects and sources[name] != "DEFAULT"}
        with _stdout_as_stderr() if as_json else nullcontext():
            result = function(*(words[name] for name in subjects), **options)
        if as_json and is_first_process():
            _print_json(result)
        if present is not None:
            # Read to the end in any case: faults that were found end the command with an error.
            _print(item for item in present(result, **words) if not as_json)

    typed = [_typed(parameter) for parameter in parameters]
    if present is not None:
        option = typer.Option("--json", help="Print the result as JSON.")
        typed.append(
            inspect.Parameter("json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, option])
        )
    typed.insert(0, inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context))
    run.__signature__ = inspect.Signature(typed)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in typed}
    summary = inspect.getdoc(function) or ""
    app.command(name, help=summary.partition("\nArgs:")[0].replace("`", "").strip())(run)


@contextmanager
def _stdout_as_stderr() -> Iterator[None]:
    """Print on stderr what would be printed on stdout, also by libraries in C and by processes started meanwhile."""
    sys.stdout.flush()
    stdout, stderr = 1, 2
    kept = os.dup(stdout)
    os.dup2(stderr, stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if os.name == "posix":
            ctypes.CDLL(None).fflush(None)  # what C has not yet written
        os.dup2(kept, stdout)
        os.close(kept)


def _typed(parameter: inspect.Parameter) -> inspect.Parameter:
    """Return a parameter of a command as typer understands it."""
    python_type, option = typing.get_args(parameter.annotation)
    kind = _command_line_type(python_type) if option.type is None else option.type
    flag = f"--{parameter.name.replace('_', '-')}"
    help_text = option.help.replace("`", "")
    limits = {"min": option.min, "max": option.max} if option.min is not None or option.max is not None else {}
    described: Any
    if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD and not option.flags:
        described = typer.Argument(help=help_text, metavar=option.metavar, show_default=False)
    else:
        # A switch that is off has no opposite; one that is on has `--no-NAME`.
        names = option.flags or ((f"{flag}/--no-{flag[2:]}",) if parameter.default is True else (flag,))
        shown = parameter.default not in (None, (), False, inspect.Parameter.empty)
        described = typer.Option(*names, help=help_text, metavar=option.metavar, show_default=shown, **limits)
    default = parameter.default
    if typing.get_origin(kind) is list and default is not inspect.Parameter.empty:
        default = None
        kind = kind | None
    return parameter.replace(
        kind=inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, described]
    )


def _command_line_type(annotation: Any) -> Any:
    """Return the type an option has on the command line: constraints and sequences are text that is checked later."""
    if typing.get_origin(annotation) is Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        (inner,) = (each for each in typing.get_args(annotation) if each is not type(None))
        return _command_line_type(inner) | None
    if typing.get_origin(annotation) is tuple:
        return str
    if typing.get_origin(annotation) is Literal and not isinstance(typing.get_args(annotation)[0], str):
        return type(typing.get_args(annotation)[0])
    return annotation


def _print(items: Iterable[Any]) -> None:
    from autocrossdim.system.console import show

    for item in items:
        show(item)


def _print_json(result: Any) -> None:
    from pydantic import TypeAdapter

    text = TypeAdapter(type(result)).dump_json(result)
    # NaN, such as the HD95 of a label that was never found, is not JSON.
    typer.echo(json.dumps(json.loads(text, parse_constant=lambda _: None), indent=2))


for _name in COMMANDS:
    _add(_name)


def main() -> NoReturn:
    """Run the command line; what a user can fix is one clear message on stderr and exit code 2."""
    # Threads that spin while they wait make a training step 2-4x slower as soon as anything else runs on these cores,
    # and at most 10 % faster when nothing does (measured: DX-Net on two cores). Read when torch loads its OpenMP.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not sys.stdout.isatty():
        os.environ.setdefault("TERMINAL_WIDTH", "160")  # of the help, whose first columns would be cut at 80
    # Tables hold characters that an ASCII terminal or log lacks; they are replaced there.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    code = 0
    try:
        # Not as an argument of `app`, which then would not expand `*` and `~` on Windows.
        sys.argv[1:] = _global_options_first(sys.argv[1:])
        code = app(standalone_mode=False, prog_name="autocrossdim") or 0
    except (typer.Abort, KeyboardInterrupt):
        code = 130
    except UserError as error:
        if logging.getLogger("autocrossdim").isEnabledFor(logging.DEBUG):
            traceback.print_exception(error)
        sys.stderr.write(f"error: {error}\n")
        code = 2
    except Interrupted as error:
        sys.stderr.write(f"{error} {_how_to_resume(sys.argv[1:])}\n")
        code = 128 + signal.SIGTERM
    except OSError as error:
        sys.stderr.write(f"error: {from_os_error(error)}\n")
        code = 2
    except Exception as error:
        # Unknown options and the like; typer's classes of errors have moved between its versions.
        if not hasattr(error, "format_message"):
            raise
        if len(sys.argv) > 1:
            where = getattr(getattr(error, "ctx", None), "command_path", "autocrossdim")
            message = in_words(error.format_message())
            end = "" if message.endswith((".", "?", "!")) else "."  # "Did you mean 'train'?" has one already
            sys.stderr.write(f"error: {message}{end}{_instead(error, sys.argv[1:])} See `{where} --help`.\n")
        code = 2
    if code == 130:  # Ctrl-C, which typer turns into an exit code or an exception, depending on its version
        sys.stderr.write(f"Stopped. {_how_to_resume(sys.argv[1:])}\n")
    sys.exit(code)


def _instead(error: Any, words: list[str]) -> str:
    """Return what to use instead of an option of nnU-Net or of version 0.1, if there is such a thing; else nothing."""
    unknown, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if unknown is None or context is None:
        return ""
    # Of `-num_gpus`, the error names the first letter.
    given = unknown if unknown in words else next((word for word in words if word.startswith(unknown)), unknown)
    parameters = context.command.params
    if _NNUNET.get(given) in {name for each in parameters for name in (*each.opts, *each.secondary_opts)}:
        return f" Use {_NNUNET[given]} instead of {given}."
    if given == "-d" and any(each.name in ("dataset", "model") for each in parameters):
        return f" Give the dataset right after `{context.command_path}`, without an option."
    return f" {_NO_COUNTERPART[given]}" if given in _NO_COUNTERPART else ""


def _global_options_first(words: list[str]) -> list[str]:
    """Return the words with `-q` and `-v`, which users also write behind the command, before it."""
    ahead = [word for word in words if word in VERBOSITY]
    return ahead + [word for word in words if word not in VERBOSITY]


def _how_to_resume(words: list[str]) -> str:
    """Return what to do after an interruption of the command with these words."""
    if "--restart" in words:
        again = shlex.join(["autocrossdim", *(word for word in words if word != "--restart")])
        return f"To resume, leave out --restart: {again}"
    if "--overwrite" in words:
        return "Run the same command again; with --overwrite, it starts from the beginning."
    return "Run the same command again to resume."
