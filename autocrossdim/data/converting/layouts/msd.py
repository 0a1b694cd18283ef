"""Medical Segmentation Decathlon: `TaskXX_Name` with a dataset.json that lists image and label files."""

from pathlib import Path
from typing import Any

from autocrossdim.data.converting.description import Description, SourceCase
from autocrossdim.data.converting.registry import Wishes, layout
from autocrossdim.data.converting.sources import LabelFile, Source, volume_sources
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, reading

REFERENCE = "Antonelli et al., The Medical Segmentation Decathlon, Nature Communications 13 (2022) 4128."


def detects(source: Path) -> bool:
    """Whether dataset.json has the list `training`, of images that exist under these names."""
    file = source / "dataset.json"
    if not file.is_file():
        return False
    try:
        content = read_json(file)
    except UserError:
        return False
    training = content.get("training") if isinstance(content, dict) else None
    # nnU-Net's first version had this list too, but its files carry a channel number that the list leaves out.
    return (
        isinstance(training, list)
        and any(isinstance(entry, dict) for entry in training)
        and any((source / str(entry.get("image"))).is_file() for entry in training if isinstance(entry, dict))
    )


@layout("msd", detects)
def describe(source: Path, _: Wishes) -> Description:
    """Describe a task; the volumes of 4D images become channels.

    Raises:
        UserError: dataset.json cannot be used.
    """
    file = source / "dataset.json"
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("training"), list):
        raise UserError(f"{file}: has no list 'training', so it is not a task of the Decathlon. Give another --layout.")
    channels, labels = _names(file, content, "modality"), _names(file, content, "labels")
    values = {int(value): int(value) for value in labels if int(value)}
    cases: list[SourceCase] = []
    faults: list[str] = []
    for entry in content["training"]:
        if isinstance(entry, dict) and {"image", "label"} <= entry.keys():
            image, label = source / entry["image"], LabelFile(source / entry["label"], values)
            _add(cases, faults, image, label, len(channels))
        else:
            faults.append(f'{file}: training contains {entry!r}. Write entries as {{"image": "...", "label": "..."}}.')
    for test in content.get("test", []):
        image = source / (test["image"] if isinstance(test, dict) else str(test))
        _add(cases, faults, image, None, len(channels))
    return Description(
        channel_names=tuple(channels[str(number)] for number in range(len(channels))),
        labels={"background": 0, **{labels[str(value)]: value for value in sorted(values)}},
        cases=cases,
        has_groups=False,
        about={
            "name": content.get("name", source.resolve().name),
            "reference": f"{content.get('reference', 'unknown')}; {REFERENCE}",
            "licence": content.get("licence", content.get("license", "not stated by the source")),
            "description": content.get("description", ""),
        },
        faults=faults,
    )


def _names(file: Path, content: dict[str, Any], key: str) -> dict[str, str]:
    """Return the entry `{"0": "name", ...}` of dataset.json."""
    names = content.get(key)
    if not isinstance(names, dict) or not names or not all(str(number).isdecimal() for number in names):
        raise UserError(f'{file}: {key} is missing or malformed. Write it as {{"0": "name", "1": "name"}}.')
    if key == "modality" and set(names) != {str(number) for number in range(len(names))}:
        raise UserError(f"{file}: {key} must be numbered from 0 without gaps.")
    return {str(int(number)): str(name) for number, name in names.items()}


def _add(cases: list[SourceCase], faults: list[str], image: Path, label: Source | None, channels: int) -> None:
    name = image.name.removesuffix(".gz").removesuffix(".nii")
    with reading():
        missing = not image.is_file()
    if missing:
        faults.append(f"{image}: no such file, but dataset.json lists it. Unpack the archive again.")
        return
    try:
        cases.append(SourceCase(name, volume_sources(image, channels), label))
    except UserError as error:
        faults.append(str(error))
