"""One directory of images and one of labels, whose files belong together by name."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from autocrossdim.data.converting.description import Description, SourceCase
from autocrossdim.data.converting.named import (
    channel_names,
    common_ending,
    labels_and_values,
    unknown_about,
    without_label,
)
from autocrossdim.data.converting.registry import Wishes, layout
from autocrossdim.data.converting.sources import ImageFile, LabelFile
from autocrossdim.data.images import ENDINGS, file_ending
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import list_directory
from autocrossdim.system.text import counted, listed

_LABELS = re.compile(r"(labels?|masks?|seg(mentation)?s?|annotations?|gts?|ground.?truths?|manual)(tr)?", re.IGNORECASE)
_IMAGES = re.compile(r"(images?|imgs?|scans?|volumes?|vols?|data|raw|inputs?)(tr)?", re.IGNORECASE)
_KIND = re.compile(
    r"[_\-. ](images?|imgs?|scans?|volumes?|labels?|masks?|seg(mentation)?s?|annotations?|gt|manual)$", re.IGNORECASE
)
_CHANNEL = re.compile(r"_(\d{4})$")


def detects(source: Path) -> bool:
    """Whether there is one directory called like images and one like labels, and no dataset.json."""
    return source.is_dir() and not (source / "dataset.json").exists() and _folders(source) is not None


@layout("pairs", detects, takes=("channels", "labels"))
def describe(source: Path, wishes: Wishes) -> Description:
    """Describe the directory; images without a label become test cases.

    `scan_1_image` and `scan_1_mask` belong together, and so do `scan_1_0000`, `scan_1_0001` (channels) and `scan_1`.
    Numbers of four digits that the labels have, too, such as `scan_0001`, are part of the name.

    Raises:
        UserError: There are no such directories, or no images.
    """
    folders = _folders(source)
    if folders is None:
        raise UserError(
            f"{source}: needs one directory of images and one of labels, called for example images and labels."
        )
    images, labels = _cases(*folders)
    if not images:
        raise UserError(
            f"{folders[0]}: contains no image in a supported format ({', '.join(ENDINGS)}). Convert "
            "the images to one of them, such as JPEG to PNG."
        )
    faults = [
        f"{files[0]}: a label without an image called {name} in {folders[0]}. Add the image, or remove the label."
        for name, files in labels.items()
        if name not in images
    ]
    faults += [
        f"{folders[1]}: {counted(len(files), 'file')} for case '{name}': {listed([file.name for file in files])}. "
        "Keep one of them."
        for name, files in labels.items()
        if len(files) > 1
    ]
    names, wrong = channel_names(wishes, images)
    files = [files[0] for name, files in labels.items() if name in images]
    declared, values, unreadable, unnamed = labels_and_values(wishes, files)
    cases = [
        SourceCase(
            name,
            tuple(ImageFile(file) for file in found),
            LabelFile(labels[name][0], values) if name in labels else None,
        )
        for name, found in images.items()
    ]
    return Description(
        channel_names=names,
        labels=declared,
        cases=cases,
        file_ending=common_ending(cases),
        has_groups=False,
        about=unknown_about(source),
        faults=[*faults, *wrong, *_misnumbered(images), *unreadable],
        warnings=[*unnamed, *without_label(cases)],
    )


def _misnumbered(images: Mapping[str, Sequence[Path]]) -> list[str]:
    """Return a fault for each case whose channels have other numbers than usual: one of them would be another image."""
    numbers = {name: tuple(_channel(file) for file in files) for name, files in images.items() if len(files) > 1}
    usual = Counter(numbers.values()).most_common(1)[0][0] if numbers else ()
    return [
        f"case '{name}': its channels are numbered {', '.join(found)} instead of {', '.join(usual)}. Rename its files."
        for name, found in numbers.items()
        if len(found) == len(usual) and found != usual
    ]


def _channel(file: Path) -> str:
    """Return the number of the channel that a file name ends with; `none` if it has no number."""
    match = _CHANNEL.search(file.name[: -len(file_ending(file))])
    return match[1] if match else "none"


def _folders(source: Path) -> tuple[Path, Path] | None:
    """Return the directories of images and of labels; None if they cannot be told apart."""
    folders = [entry for entry in list_directory(source) if entry.is_dir() and not entry.name.startswith(".")]
    images = [folder for folder in folders if _IMAGES.fullmatch(folder.name)]
    labels = [folder for folder in folders if _LABELS.fullmatch(folder.name)]
    return (images[0], labels[0]) if len(images) == len(labels) == 1 else None


def _cases(images: Path, labels: Path) -> tuple[dict[str, list[Path]], dict[str, list[Path]]]:
    """Return the image files and the label files of each case."""
    found = _by_case(labels, numbered=False)
    if found and all(name.endswith("_0000") for name in found):
        return _by_case(images, numbered=True), _by_case(labels, numbered=True)
    named = _by_case(images, numbered=False)
    is_name = any(_CHANNEL.search(name) for name in named.keys() & found.keys())
    return (named if is_name else _by_case(images, numbered=True)), found


def _by_case(folder: Path, *, numbered: bool) -> dict[str, list[Path]]:
    """Return the files of each case, in the order of their channels, whose number the name ends with if `numbered`."""
    found: dict[str, list[Path]] = {}
    for file in list_directory(folder):
        ending = next((each for each in ENDINGS if file.name.lower().endswith(each)), None)
        if ending is None or file.name.startswith("."):
            continue
        stem = file.name[: -len(ending)]
        found.setdefault(_case(_CHANNEL.sub("", stem) if numbered else stem), []).append(file)
    return found


def _case(stem: str) -> str:
    """Return the name of the case: without what tells images and labels apart."""
    return _KIND.sub("", stem)
