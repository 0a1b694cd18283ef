"""One table of all cases from one file per case, which several processes may be writing."""

from collections.abc import Callable
from pathlib import Path

from autocrossdim.system.files import Record, read_record


def summarise(record: type[Record], folder: Path, ending: str, write: Callable[[list[Record]], None]) -> list[Record]:
    """Read the records of all cases and write them, until nothing has changed since they were read.

    If several processes share a directory, one may replace another's table with an older one. The last process to
    write sees all records, because every process writes its records before the table.

    Args:
        record: What a file contains.
        folder: Directory of the files.
        ending: Ending of their names.
        write: Writes the table of all records, sorted by the names of their files.

    Returns:
        The records that were written.

    Raises:
        UserError: A file is damaged.
    """
    written: list[str] | None = None
    while True:
        records = []
        for path in sorted(folder.glob(f"[!.]*{ending}")):  # names with a dot are being written
            records.append(read_record(record, path, remedy="Delete it and run the same command again."))
        read = [each.model_dump_json() for each in records]  # text, because NaN differs from itself
        if read == written:
            return records
        write(records)
        written = read
