"""The files of a model repository on the Hugging Face Hub, besides the model file."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from autocrossdim.models import card
from autocrossdim.models.hub import FILE, SCHEME
from autocrossdim.models.model_file import ModelFile
from autocrossdim.system.console import say
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import reading, write_json, write_text
from autocrossdim.system.lock import LOCK, locked
from autocrossdim.system.text import listed, shown_path

CARD, CONFIG = "README.md", "config.json"
UNKNOWN = "unknown"  # the hub's name for a licence that is not stated
PLACE = f"{SCHEME}OWNER/NAME"  # the address, which only the owner knows


def check_licence(licence: str) -> None:
    """Raise a UserError unless a licence could be one of the hub's identifiers."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{0,50}", licence):
        raise UserError(
            f"--licence {licence}: use an identifier of the hub, such as apache-2.0, cc-by-4.0 or cc-by-nc-4.0."
        )


@contextmanager
def repository_to_write(folder: Path) -> Iterator[None]:
    """Check and lock the directory of a repository; another export would mix its files with those of this one.

    The lock file is beside the directory, all of whose files are uploaded.

    Raises:
        UserError: Another process writes to it, or it contains files that would be replaced, but is no repository of a
            model.
    """
    place = Path(os.path.realpath(folder))
    with locked(place.parent / f".{place.name}{LOCK}", folder):
        _check_folder(folder)
        yield


def _check_folder(folder: Path) -> None:
    with reading():
        is_clone = (folder / ".git").exists()  # of a new repository, for which the hub has written a README.md
        taken = [name for name in ((CONFIG,) if is_clone else (CARD, CONFIG)) if (folder / name).exists()]
        taken = [] if (folder / FILE).exists() else taken
    if taken:
        raise UserError(
            f"--hub {shown_path(folder)}: contains {listed(taken)} that `autocrossdim export` did not write and would "
            "replace. Choose a new or empty directory."
        )


def write_hub_files(file: ModelFile, folder: Path, *, licence: str = UNKNOWN) -> None:
    """Write README.md, a model card with the metadata that the hub reads, and config.json.

    An existing README.md that differs, because its owner may have edited it, is kept as README.former.md.

    Args:
        file: The model file.
        folder: Directory of the repository; the model file must be placed there as `model.acd`.
        licence: Licence under which the model is shared, as the hub names it.

    Raises:
        UserError: A file cannot be written.
    """
    program = version("autocrossdim")
    front = f"---\n{_metadata(file, licence).to_yaml().strip()}\n---\n\n"
    text = front + card.write(file.plan, file.about, program, PLACE, file.best)
    path, former = folder / CARD, _unused(folder)
    with reading(path):
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") != text:
            path.replace(former)
            say(f"{path}: the former version is kept as {former.name}. Copy what you had added to it.")
    write_text(path, text)
    write_json(folder / CONFIG, _config(file, program))


def _unused(folder: Path) -> Path:
    """Return the name under which a former model card is kept: one that no earlier card has."""
    names = (f"{Path(CARD).stem}.former{number}.md" for number in ("", *range(2, 10**6)))
    return next(path for name in names if not (path := folder / name).exists())


def _metadata(file: ModelFile, licence: str) -> ModelCardData:
    """Return what the hub shows beside the card and searches by."""
    plan = file.plan
    results = [
        EvalResult(
            task_type="image-segmentation",
            dataset_type="private",
            dataset_name=plan.dataset,
            metric_type="dice",
            metric_name=f"Dice, mean over the labels, {name} on held-out cases",
            metric_value=round(dice, 4),
        )
        for name, trained in file.about.configurations.items()
        if trained.cross_validation is not None and not trained.stage_only
        if (dice := trained.cross_validation.foreground["Dice"].mean) is not None
    ]
    return ModelCardData(
        license=licence,
        library_name="autocrossdim",
        pipeline_tag="image-segmentation",
        tags=["medical-imaging", "image-segmentation", f"{plan.dims}d"],
        model_name=plan.dataset,
        eval_results=results or None,
    )


def _config(file: ModelFile, program: str) -> dict[str, Any]:
    """Return what a program must know to choose the model and to prepare images for it."""
    plan = file.plan
    return {
        "library_name": "autocrossdim",
        "autocrossdim_version": program,
        "model_file": FILE,
        "dataset": plan.dataset,
        "dims": plan.dims,
        "channel_names": list(plan.channel_names),
        "labels": {"background": [0], **{name: list(values) for name, values in plan.labels.foreground.items()}},
        "file_ending": plan.file_ending,
        "configurations": {
            name: {
                "dims": one.dims,
                "spacing": list(one.spacing),
                "patch_size": list(one.patch_size),
                "encoder": one.encoder,
                "folds": file.folds[name],
                "previous_stage": one.previous_stage,
            }
            for name, one in plan.configurations.items()
        },
    }
