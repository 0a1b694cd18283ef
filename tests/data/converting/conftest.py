"""Conversion as users run it: the source stays as it was, and the dataset passes `verify`."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import autocrossdim

Convert = Callable[..., tuple[Path, dict[str, Any]]]


def digest(folder: Path) -> dict[Path, str]:
    files = [folder] if folder.is_file() else sorted(file for file in folder.rglob("*") if file.is_file())
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Convert a source; return the dataset and its dataset.json."""

    def run(source: Path, *, output: str = "Dataset001_New", **options: Any) -> tuple[Path, dict[str, Any]]:
        before = digest(source)
        converted = autocrossdim.convert(source, tmp_path / output, processes=1, **options)
        assert digest(source) == before
        report = autocrossdim.verify(converted.path, processes=1)
        assert report.faults == []
        content = json.loads((converted.path / "dataset.json").read_text(encoding="utf-8"))
        assert content["numTraining"] == converted.training
        assert content["converted_from"]["layout"] == converted.layout
        return converted.path, content

    return run
