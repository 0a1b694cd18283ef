"""The runs of a benchmark, one line of JSON each in a file, so that an interrupted benchmark resumes where it was."""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

Record = dict[str, Any]
"""The options of a run and its results."""


class Runs:
    """The finished runs.

    Args:
        path: File that a line is added to after each run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Record]:
        """Return the records of the finished runs."""
        return [json.loads(line) for line in self.path.read_text("utf-8").splitlines()] if self.path.exists() else []

    def add(self, record: Record) -> None:
        """Add a finished run."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def has(self, options: Record) -> bool:
        """Return whether a run with these options is finished."""
        return any({**record, **options} == record for record in self.read())

    def folder(self, options: Record) -> Path:
        """Return the directory of a run, beside the file."""
        return self.path.parent / "-".join(str(value) for value in options.values())

    def run_missing(self, jobs: Iterable[Record]) -> None:
        """Run this script again for each set of options that has no finished run, in a process of its own.

        The script receives the options as JSON with `--only`, and adds the record.
        """
        for options in jobs:
            if not self.has(options):
                subprocess.run([sys.executable, *sys.argv, "--only", json.dumps(options)], check=True)


def run_parser(doc: str | None, *, seeds: list[int]) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark that trains on a few cases chosen by a seed.

    Args:
        doc: Documentation of the script, for `--help`.
        seeds: Default of `--seeds`.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cases", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=seeds)
    parser.add_argument("--weights", type=Path, help="File with encoder weights, named after the encoder.")
    parser.add_argument("--only", help=argparse.SUPPRESS)  # one run, as JSON, in a process of its own
    return parser
