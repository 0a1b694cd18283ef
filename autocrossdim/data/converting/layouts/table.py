"""A table (CSV) with the columns case, label and group, and one column per channel."""

import csv
from pathlib import Path

from autocrossdim.data.converting.description import Description, SourceCase
from autocrossdim.data.converting.named import COLOURS, common_ending, is_colour, labels_and_values, unknown_about
from autocrossdim.data.converting.registry import Wishes, layout
from autocrossdim.data.converting.sources import ImageFile, LabelFile
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import reading
from autocrossdim.system.text import printable

OWN = ("case", "label", "group")
COLUMNS = "the columns case, one per channel (its header names the channel), label and, if you like, group"


def detects(source: Path) -> bool:
    """Whether the source is a CSV file."""
    return source.is_file() and source.suffix.lower() == ".csv"


@layout("csv", detects, takes=("labels",))
def describe(source: Path, wishes: Wishes) -> Description:
    """Describe the table; paths in it are relative to its directory, and cases without a label become test cases.

    Raises:
        UserError: The file is not such a table.
    """
    channels, rows = _read(source)
    faults, cases = [], []
    files: list[Path] = []
    for number, row in rows:
        images = [_path(source, row[channel]) for channel in channels]
        label = _path(source, row.get("label", ""))
        empty = [channel for channel, image in zip(channels, images, strict=True) if image is None]
        if not row["case"] or empty:
            what = "case" if not row["case"] else ", ".join(empty)
            faults.append(f"{source}, line {number}: {what} is empty. Fill it in, or remove the line.")
            continue
        missing = [path for path in (*images, label) if path is not None and not path.is_file()]
        faults += [f"{source}, line {number}: {path}: no such file. Correct the path." for path in missing]
        if missing:
            continue
        files += [label] if label is not None else []
        cases.append((row, [image for image in images if image is not None], label))
    labels, values, unreadable, unnamed = labels_and_values(wishes, files)
    described = [
        SourceCase(
            row["case"],
            tuple(ImageFile(image) for image in images),
            None if label is None else LabelFile(label, values),
            row.get("group") or None,
        )
        for row, images, label in cases
    ]
    colour = len(channels) == 1 and bool(cases) and is_colour(cases[0][1][0])
    return Description(
        channel_names=COLOURS if colour else tuple(channels),
        labels=labels,
        cases=described,
        file_ending=common_ending(described),
        about=unknown_about(source),
        faults=[*faults, *unreadable],
        warnings=unnamed,
    )


def _read(source: Path) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """Return the names of the channels, and every row with its line number."""
    try:
        with reading(source), source.open(encoding="utf-8-sig", newline="") as file:
            start = file.read(4096)
            file.seek(0)
            separator = ";" if start.partition("\n")[0].count(";") > start.partition("\n")[0].count(",") else ","
            reader = csv.DictReader(file, delimiter=separator, skipinitialspace=True)
            columns = [(name or "").strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [
                (reader.line_num, {key: (value or "").strip() for key, value in row.items() if isinstance(key, str)})
                for row in reader
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{source}: not a table in UTF-8 ({error}). Save it as CSV with {COLUMNS}.") from error
    channels = [name for name in columns if name not in OWN]
    if "case" not in columns or "label" not in columns or not channels or len(set(columns)) < len(columns):
        found = printable(", ".join(columns)) or "nothing"
        raise UserError(f"{source}: its first line names {found}. It needs {COLUMNS}, each once.")
    if not rows:
        raise UserError(f"{source}: contains no case. Write one line per case.")
    return channels, rows


def _path(source: Path, text: str) -> Path | None:
    return source.parent / text if text else None
