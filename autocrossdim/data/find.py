"""Where a dataset is: its directory from a path, a name or a number."""

import os
import re
from difflib import get_close_matches
from pathlib import Path

from autocrossdim.records.workspace import Workspace
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import list_directory, reading
from autocrossdim.system.text import listed, shown_path

RAW_VARIABLES = ("AUTOCROSSDIM_RAW", "nnUNet_raw")


@reading()
def find_dataset(argument: str | Path | int) -> Path:
    """Return the directory of a dataset.

    `argument` is its path, name (`Dataset004_Hippocampus`, `Dataset004` or `Hippocampus`) or number. Names and numbers
    are looked up under $AUTOCROSSDIM_RAW, then $nnUNet_raw.

    Raises:
        UserError: Not found, or found more than once; the message lists the places searched.
    """
    path = Path(str(argument))
    if path.is_dir():
        return path
    searched = [shown_path(path.absolute())]
    for variable in RAW_VARIABLES:
        if not os.environ.get(variable):
            searched.append(f"${variable} (not set)")
            continue
        root = Path(os.environ[variable])
        searched.append(f"${variable} ({root})")
        folders = [entry for entry in list_directory(root) if entry.is_dir()] if root.is_dir() else []
        found = [folder for folder in folders if _is_called(folder.name, str(argument))]
        if len(found) > 1:
            names = ", ".join(folder.name for folder in found)
            raise UserError(f"{argument}: several datasets in {root} match: {names}. Give the full name.")
        if found:
            return found[0]
    if path.exists():
        raise UserError(f"{shown_path(path)}: a file, not the directory of a dataset. {hint_for(path)}")
    near = get_close_matches(path.name, _names_beside(path), 1, 0.75)
    unset = "" if any(map(os.environ.get, RAW_VARIABLES)) else f", or set ${RAW_VARIABLES[0]} to the directory it is in"
    hint = f"Did you mean {near[0]}?" if near else f"Give its directory{unset}."
    raise UserError(f"{shown_path(argument)}: no such dataset. Searched: {', '.join(searched)}. {hint}")


def find_raw(argument: str | Path | int) -> Path:
    """Return the directory of a dataset as `find_dataset` does, but refuse a work directory, which has no images.

    Raises:
        UserError: Not found, found more than once, or a work directory.
    """
    path = find_dataset(argument)
    if Workspace(path).plan.is_file() and not (path / "imagesTr").is_dir():
        raise UserError(f"{shown_path(path)}: contains results, not the dataset. Give the directory with imagesTr.")
    return path


def hint_for(path: Path) -> str:
    """Return what to do about a path that is no dataset: the dataset around it or in it, else where to read on."""
    if (path.parent / "dataset.json").is_file():
        return f"Give the directory of the dataset: {shown_path(path.parent)}"
    inner = [entry for entry in list_directory(path) if (entry / "dataset.json").is_file()] if path.is_dir() else []
    if inner:
        return f"Give one of the datasets in it: {listed([shown_path(entry) for entry in inner], 3)}"
    return "The format is explained in datasets_template/README.md; `autocrossdim convert` reads other layouts."


def _is_called(folder: str, wanted: str) -> bool:
    """Whether a directory's name is `wanted`, or DatasetXXX_Name if `wanted` is XXX, DatasetXXX or Name."""
    match = re.fullmatch(r"Dataset(\d+)_(.+)", folder)
    return folder == wanted or (
        match is not None
        and (wanted in (match[2], f"Dataset{match[1]}") or (wanted.isdecimal() and int(match[1]) == int(wanted)))
    )


def _names_beside(path: Path) -> list[str]:
    """Return the names of the directories where a dataset was looked for."""
    roots = [path.parent, *(Path(os.environ[variable]) for variable in RAW_VARIABLES if os.environ.get(variable))]
    return [entry.name for root in roots if root.is_dir() for entry in list_directory(root) if entry.is_dir()]
