"""The files below a directory, compared without what differs from run to run."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

VOLATILE = re.compile(r".*(seconds|minutes|waited|_day).*|date")
"""Keys of JSON files and checkpoints that hold measured times and days, which may pass midnight."""

TIME = re.compile(r"\d+\.\d")
"""Measured times in the table of a study; its other numbers have more or no decimal places."""

Tree = dict[str, str]  # path -> digest of the content


def contents(root: Path) -> Tree:
    """Return the digest of each file below a directory, without measured times; directories count as well."""
    tree = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        tree[name] = "directory" if path.is_dir() else hashlib.sha256(_steady(path)).hexdigest()[:16]
    return tree


def _steady(path: Path) -> bytes:
    """Return the content of a file for the comparison, which leaves out measured times."""
    if path.suffix == ".json":
        content = json.loads(path.read_text(encoding="utf-8"))
        if path.name == "best.json":
            models = path.parent / "models"
            content["checkpoints"] = {
                name: _is_current(digest, models / name / "checkpoint_latest")
                for name, digest in content["checkpoints"].items()
            }
        return _canonical(content)
    if path.suffix == ".jsonl":
        return b"\n".join(_canonical(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines())
    if path.name == "doctor.md":  # all else is measured, or follows from measurements
        return "".join(re.findall("^#.*\n", path.read_text(encoding="utf-8"), re.MULTILINE)).encode()
    if path.suffix == ".md":
        return "|".join(map(_without_time, path.read_text(encoding="utf-8").split("|"))).encode()
    if path.name.startswith("checkpoint_"):
        import torch

        return _canonical(torch.load(path, weights_only=True))
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return _canonical({name: arrays[name] for name in arrays.files})
    return path.read_bytes()


def _is_current(digest: str, checkpoint: Path) -> bool:
    """Whether a digest is that of a checkpoint, whose bytes also hold measured times."""
    return checkpoint.exists() and hashlib.sha256(checkpoint.read_bytes()).hexdigest() == digest


def _canonical(content: Any) -> bytes:
    return json.dumps(_plain(content), sort_keys=True).encode()


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {str(k): _plain(v) for k, v in content.items() if not VOLATILE.fullmatch(str(k))}
    if isinstance(content, (list, tuple)):
        return [_plain(each) for each in content]
    if isinstance(content, str):
        return _without_time(content)
    if hasattr(content, "numpy"):
        content = content.numpy()
    if isinstance(content, np.ndarray):
        return [str(content.dtype), list(content.shape), hashlib.sha256(content.tobytes()).hexdigest()]
    return content


def _without_time(text: str) -> str:
    return "time" if TIME.fullmatch(text.strip()) else text


def differences(expected: Tree, found: Tree) -> list[str]:
    """Return what is missing, left over or different."""
    return [
        *(f"missing: {name}" for name in expected if name not in found),
        *(f"left over: {name}" for name in found if name not in expected),
        *(f"different: {name}" for name in expected if name in found and expected[name] != found[name]),
    ]
