"""What `predict` is pointed at: which trained folds, and which cases."""

import re
from collections.abc import Sequence
from pathlib import Path

from autocrossdim.data.dataset import Case, cases_in_folder
from autocrossdim.data.images import file_ending
from autocrossdim.records.plan import Configuration, Plan
from autocrossdim.system.errors import UserError

FAR = 2.0  # times finer or coarser than in training; augmentation shows the network 0.7 to 1.4 times


def find_inputs(source: Path, channels: int, ending: str) -> list[Case]:
    """Return the cases to segment.

    Args:
        source: folder of images, the first file of one case, the folder of a DICOM series, or a folder of those.
        channels: the model's number of channels.
        ending: of the images the model was trained on.

    Raises:
        UserError: nothing is there, or a channel is missing.
    """
    if not source.exists():
        raise UserError(f"-i {source}: no such file or folder.")
    if source.is_dir():
        return cases_in_folder(source, channels, ending)
    found = file_ending(source)
    stem = source.name[: -len(found)]
    if channels > 1 and stem.endswith("_0000"):
        siblings = [source.with_name(f"{stem[:-5]}_{channel:04d}{found}") for channel in range(channels)]
        if siblings[1].exists():
            return [Case(stem[:-5], tuple(siblings), None)]
    return [Case(stem.removesuffix("_0000"), (source,), None)]


def part_of(cases: Sequence[Case], part: str) -> list[Case]:
    """Return one part of the cases, sorted by name: every Nth from the Ith on, where `part` is `I/N`.

    Raises:
        UserError: that is not what `part` is.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if match is None or not int(match[1]) < int(match[2]):
        raise UserError(f"--part {part}: I/N with I from 0 to N - 1, such as 0/4 to 3/4 on four machines.")
    return sorted(cases, key=lambda case: case.name)[int(match[1]) :: int(match[2])]


def far_from_training(
    spacing: tuple[float, float, float], plan: Plan, configurations: Sequence[Configuration]
) -> list[str]:
    """Return a sentence for each axis along which an image's voxels are not as in training, by more than `FAR` times.

    Args:
        spacing: of the image, mm (z, y, x) as read.
        plan: gives the order of axes.
        configurations: give the spacing trained at; a network of slices knows none across them.
    """
    sentences = []
    for configuration in configurations:
        axes = plan.transpose[-configuration.dims :]
        for axis, trained in zip(axes, configuration.spacing, strict=True):
            factor = max(spacing[axis] / trained, trained / spacing[axis])
            if factor > FAR:
                sentences.append(
                    f"a spacing of {spacing[axis]:g} mm along {'zyx'[axis]}; {configuration.name} was trained at "
                    f"{trained:g} mm, {factor:.1f} times {'finer' if trained < spacing[axis] else 'coarser'}. Do not "
                    "trust the result unseen."
                )
    return sentences
