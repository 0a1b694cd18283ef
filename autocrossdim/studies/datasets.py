"""The files of a run: a dataset of its training cases, which refers to the original files, and the held-out cases."""

import shutil
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from autocrossdim.data.dataset import Case, Dataset
from autocrossdim.data.pictures import spacing_file
from autocrossdim.records.sources import content_hash, file_versions
from autocrossdim.system.errors import UserError, from_os_error
from autocrossdim.system.files import write_json, written_whole

BY_CASE = ("groups", "annotated_labels")  # keys of dataset.json that list cases
MEANING = (  # keys of dataset.json on which the results of a run depend, besides the files of its cases
    *("channel_names", "modality", "labels", "regions_class_order", "groups"),
    *("unannotated_slices", "sides", "mirror_axes"),
)


def case_digests(dataset: Dataset) -> dict[str, str]:
    """Return a digest of the images and the label of each annotated case, by which a correction is noticed.

    Raises:
        UserError: A file is missing or cannot be read.
    """
    return {
        case.name: content_hash(file_versions(case.source_files), case.annotated_labels)
        for case in dataset.training_cases()
    }


def described_by(dataset: Dataset, names: Collection[str]) -> dict[str, Any]:
    """Return what dataset.json says about labels, images and patients of some cases, by which a change is noticed."""
    content = {key: value for key, value in dataset.description.items() if key in MEANING}
    return content | {key: _of(content[key], names) for key in BY_CASE if key in content}


def write_training_dataset(dataset: Dataset, folder: Path, *, train: Sequence[str], val: Sequence[str] = ()) -> Path:
    """Write a dataset of some cases that refers to the files of the original one.

    Args:
        dataset: The original dataset.
        folder: Directory in which to write it, under the same name.
        train: Names of its training cases.
        val: Names of its validation cases; without any, the dataset has no folds of its own.

    Returns:
        Directory of the dataset.
    """
    path = folder / dataset.name
    names = {*train, *val}
    cases = {case.name: case for case in dataset.training_cases() if case.name in names}
    content = {key: value for key, value in dataset.description.items() if key not in ("training", "test", "numTest")}
    content |= {key: _of(content[key], names) for key in BY_CASE if isinstance(content.get(key), dict)}
    content["dataset"] = {name: _files(case) for name, case in sorted(cases.items())}
    write_json(path / "dataset.json", {**content, "numTraining": len(names)})
    if val:
        write_json(path / "splits_final.json", [{"train": sorted(train), "val": sorted(val)}])
    return path


def write_test_cases(dataset: Dataset, folder: Path, names: Collection[str]) -> None:
    """Link (or copy, where that is impossible) held-out cases into `folder/images` and `folder/labels`."""
    wanted: dict[Path, Path] = {}
    for case in dataset.training_cases():
        if case.name not in names:
            continue
        for channel, image in enumerate(case.images):
            wanted |= _with_spacing(image, folder / "images" / f"{case.name}_{channel:04d}{dataset.file_ending}")
        assert case.label is not None
        wanted |= _with_spacing(case.label, folder / "labels" / f"{case.name}{dataset.file_ending}")
    for target, source in wanted.items():
        _link(source, target)


def _with_spacing(source: Path, target: Path) -> dict[Path, Path]:
    """Return the file to link and, for TIFF, the file with its spacing."""
    side, beside = spacing_file(source), spacing_file(target)
    files = {target: source}
    if side is not None and beside is not None and side.is_file():
        files[beside] = side
    return files


def _link(source: Path, target: Path) -> None:
    if not source.is_file():
        raise UserError(f"{source}: no such file. Run `autocrossdim verify` to list all problems of the dataset.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_symlink():
            if target.readlink() == source.absolute():
                return  # another process of the study may be reading it
            target.unlink()
        try:
            target.symlink_to(source.absolute())
        except OSError:  # it is a file, Windows without the privilege, file systems without links
            with written_whole(target) as temporary:
                shutil.copy2(source, temporary)
    except OSError as error:
        raise from_os_error(error, target, "written") from error


def _files(case: Case) -> dict[str, Any]:
    # Not resolved: what a link points to may have another ending.
    return {"images": [str(image.absolute()) for image in case.images], "label": str(Path(case.label or "").absolute())}


def _of(content: dict[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name in names}
