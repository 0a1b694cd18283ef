"""The history of a training run on disk: one JSON line per epoch."""

import json
from pathlib import Path
from typing import Any

from autocrossdim.system.errors import UserError


def read_history(path: Path) -> list[dict[str, Any]]:
    """Return the epochs of a history.jsonl; empty if there is none.

    Raises:
        UserError: The file is damaged.
    """
    if not path.exists():
        return []
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        return [{**line, "seconds": float(line["seconds"])} for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged ({error}). Delete it and run the same command again.") from error
