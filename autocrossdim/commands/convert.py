"""`autocrossdim convert`: convert public benchmarks and common layouts to a raw dataset."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from autocrossdim.commands.arguments import ProcessesOption, several
from autocrossdim.commands.signature import Option, command
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from autocrossdim.data.converting.writer import Converted


@command()
def convert(
    source: Annotated[str | Path, Option("Directory or CSV file to convert.", Path, metavar="SOURCE")],
    output: Annotated[
        str | Path, Option("Directory of the dataset, such as Dataset010_Name.", Path, ("-o", "--output"))
    ],
    *,
    layout: Annotated[
        str | None,
        Option(
            "Layout: msd, camus, chaos, brats, pairs, csv or dicom (default: recognised from the files).", str | None
        ),
    ] = None,
    modality: Annotated[str | None, Option("CHAOS scans to convert: ct, t1 or t2.", str | None)] = None,
    channel: Annotated[
        str | Sequence[str],
        Option("Name of a channel, in order; repeat for several. For pairs and dicom.", list[str], metavar="NAME"),
    ] = (),
    label: Annotated[
        Mapping[str, int] | Sequence[str],
        Option(
            "Label and its value (dicom: in the dataset); repeat for several. For pairs, csv and dicom.",
            list[str],
            metavar="NAME=VALUE",
        ),
    ] = (),
    processes: ProcessesOption = None,
) -> "Converted":
    """Convert a public benchmark, or your own images and labels, to a dataset.

    The source is only read. Everything is checked before anything is written. If the conversion is interrupted, run
    the same command again to resume.

    Args:
        source: Directory or CSV file to convert.
        output: Directory of the dataset.
        layout: Layout of the source: `msd`, `camus`, `chaos`, `brats`, `pairs`, `csv` or `dicom`; recognised from the
            files if None.
        modality: CHAOS scans to convert: `ct`, `t1` or `t2`.
        channel: Names of the channels, for the layouts `pairs` and `dicom`.
        label: Name -> value in the label files, for the layouts `pairs` and `csv`; name of a structure -> value in the
            dataset, for the layout `dicom`. All that occur if empty.
        processes: Worker processes; each holds one case in memory.

    Returns:
        What was converted.

    Raises:
        UserError: The layout is not recognised, or the source has problems; all of them are listed.
    """
    from datetime import UTC, datetime
    from importlib.metadata import version

    from autocrossdim.data.converting.layouts import find
    from autocrossdim.data.converting.registry import Wishes, describe
    from autocrossdim.data.converting.writer import write_dataset
    from autocrossdim.system.processes import default_processes

    source, output = Path(source), Path(output)
    found = find(source, layout)
    _require_apart(source, output)
    processes = processes or default_processes()
    labels = _labels(label)
    wishes = Wishes(modality, tuple(several(channel)), labels, processes)
    words = ["autocrossdim", "convert", str(source), "-o", str(output), "--layout", found.name]
    words += ["--modality", modality] if modality else []
    words += [word for name in wishes.channels for word in ("--channel", name)]
    words += [word for name, value in (labels or {}).items() for word in ("--label", f"{name}={value}")]
    origin = {
        "layout": found.name,
        "source": str(source.absolute()),
        "command": shlex.join(words),
        "version": f"autocrossdim {version('autocrossdim')}",
        "date": datetime.now(UTC).date().isoformat(),
    }
    return write_dataset(
        describe(found, source.absolute(), wishes), output, origin, layout=found.name, processes=processes
    )


def present(converted: "Converted", **_: object) -> Iterator[str]:
    """Yield what the command line prints."""
    from autocrossdim.commands.next_step import next_step
    from autocrossdim.system.text import counted

    yield from (f"warning: {warning}" for warning in converted.warnings)
    unchanged = converted.training + converted.test - converted.written
    yield (
        f"{converted.path}: {counted(converted.training, 'training case')} and {counted(converted.test, 'test case')} "
        f"of the layout {converted.layout}; {converted.written} written, {unchanged} unchanged."
    )
    yield "Labels: " + ", ".join(f"{name} = {value}" for name, value in converted.labels.items()) + "."
    if converted.patients_unknown:
        yield (
            f"The layout {converted.layout} does not say which cases are of one patient. If some are, add groups to "
            f'{converted.path / "dataset.json"}, such as {{"case_1": "patient_A", "case_2": "patient_A"}}, so that no '
            "patient is in both training and validation."
        )
    yield next_step("verify", converted.path)


def _labels(value: Mapping[str, int] | Sequence[str]) -> dict[str, int] | None:
    """Return labels given as a mapping or as `NAME=VALUE` texts; None if there are none.

    Raises:
        UserError: A text is not of that form, or a name or value is given twice.
    """
    if isinstance(value, Mapping):
        pairs = [(str(name), str(number)) for name, number in value.items()]
    else:
        pairs = [(text.rpartition("=")[0].strip(), text.rpartition("=")[2].strip()) for text in several(value)]
    for name, number in pairs:
        if not name or not number.isdecimal() or int(number) >= 2**16:
            given = f"{name}={number}" if name else number
            raise UserError(f"--label {given}: use NAME=VALUE with a value up to 65535, such as tumour=2.")
    if len({name for name, _ in pairs}) < len(pairs) or len({int(number) for _, number in pairs}) < len(pairs):
        raise UserError("--label: a name or a value is given more than once. Give each label its own value.")
    return {name: int(number) for name, number in pairs} or None


def _require_apart(source: Path, output: Path) -> None:
    """Refuse a dataset inside its source, or around it: the source is never written to.

    Raises:
        UserError: One contains the other.
    """
    inside, outside = output.resolve(), source.resolve()
    if inside == outside or outside in inside.parents or inside in outside.parents:
        raise UserError(f"{output}: overlaps with the source {source}, which is only read. Choose another directory.")
