"""Which axes may be mirrored: not those along which position alone tells two labels apart."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from autocrossdim.data.orientation import axis_name
from autocrossdim.data.sides import MIRROR_AXES, missing_axes, missing_axes_fault
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import counted

# In which both labels occur. With few cases, an order is often kept by chance, but the two mistakes are unequal: not
# mirroring an axis that could be mirrored was not shown to cost anything; mirroring one that tells labels apart cost
# 0.06 to 0.47 in Dice (benchmarks/results/data.md).
MIN_CASES = 2
MIN_GAP = 1.0  # voxels between two centroids that count as an order
ALIKE = 1.0  # standard deviations: labels whose mean intensities are closer look alike

# Words for the two sides in the languages that label names are seen in; a single letter must be a word of its own.
_LEFT = re.compile(
    "left|lft|l|lt|lh|links|linke[nrs]?|li|gauche|g|izquierd[ao]|izq|esquerd[ao]|esq|sinist(er|r[ao])|sin|sx"
)
_RIGHT = re.compile(
    "right|rgt|r|rt|rh|rechts|rechte[nrs]?|re|droite?|d|derech[ao]|der|direit[ao]|dir|dexter|destr[ao]|dex|dx"
)
SIDE_LETTERS = "lrgd"  # left, right, gauche, droite
_CHAMBERS = re.compile("atri|ventric")  # named by a side, but their counterparts do not look like mirror images


@dataclass(frozen=True)
class Mirroring:
    """The axes of the plan (0 is the coarsest) that may be mirrored, and what there is to say, one sentence each."""

    axes: tuple[int, ...]
    reasons: tuple[str, ...]


def choose_mirroring(
    fingerprint: Fingerprint,
    labels: Labels,
    *,
    transpose: Sequence[int],
    axis_names: Sequence[str],
    dims: int,
    sides: Sequence[tuple[str, str]] = (),
    chosen: Sequence[str] | None = None,
) -> Mirroring:
    """Choose the axes to mirror in training and at test time.

    An axis is not mirrored if labels come in left/right pairs and it is the left-right axis, or if two labels that look
    alike keep their order along it in every case. Measured on Hippocampus and on paired organs: see the documentation.

    Args:
        fingerprint: The dataset, in its common orientation.
        labels: What label values mean.
        transpose: Axis (z, y, x) of that orientation which is each axis of the plan.
        axis_names: Name of each axis of the plan, such as `left-right`, or `z`, `y`, `x` where directions are unknown
            or differ between images.
        dims: Number of axes of the images; the first axis of a 2D image is no axis to mirror.
        sides: Pairs of labels that are the left and right version of one structure, as declared in dataset.json.
        chosen: Names of the axes to mirror, as declared in dataset.json, in place of the planner's choice.

    Raises:
        UserError: The images do not have a chosen axis.
    """
    # Files of one slice may state an orientation that means nothing, such as that of ultrasound.
    shown = axis_names if dims == 3 else ["zyx"[axis] for axis in transpose]
    if chosen is not None:
        if missing := missing_axes(chosen, dims=dims, oriented="left-right" in axis_names):
            raise UserError(f"dataset.json: {missing_axes_fault(missing, dims=dims)}")
        names = [{name, "zyx"[transpose[axis]]} for axis, name in enumerate(axis_names)]
        axes = tuple(axis for axis, known in enumerate(names) if not known.isdisjoint(chosen))
        named = _listed(shown, axes) or "none"
        return Mirroring(axes, (f"Mirrored axes: {named}, as set in dataset.json (mirror_axes).",))
    reasons: dict[int, str] = {}
    pairs = [tuple(pair) for pair in sides] or side_pairs(labels.names)
    if pairs:
        left_right, named = _left_right(axis_names)
        more = f" and {counted(len(pairs) - 1, 'more pair')}" if len(pairs) > 1 else ""
        reasons[left_right] = (
            f"{named} is not mirrored, because labels differ by their side: {pairs[0][0]} and {pairs[0][1]}{more}."
        )
    for axis, name in enumerate(shown):
        if axis in reasons or (dims == 2 and axis == 0):
            continue
        found = _ordered_pair(fingerprint, labels, transpose[axis])
        if found is not None:
            reasons[axis] = (
                f"The {name} axis is not mirrored, because {found[0]} and {found[1]} look alike and lie in the same "
                f"order along it in all {found[2]} cases that have both."
            )
    axes = tuple(axis for axis in range(len(axis_names)) if axis not in reasons)
    existing = range(1 if dims == 2 else 0, len(axis_names))
    sentences = [reasons[axis] for axis in sorted(reasons)] or [f"Mirrored axes: {_listed(shown, existing)}."]
    alone = None if pairs else _lone_side(labels.names)
    left_right, named = _left_right(axis_names)
    if alone is not None and left_right in axes:
        sentences.append(
            f"{named} is mirrored, although {alone} is named by its side, because no label is its counterpart. If the "
            "images show a look-alike on the other side, set mirror_axes in dataset.json to the other axes."
        )
    return Mirroring(axes, tuple(sentences))


def plan_axis_names(orientation: str | None, transpose: Sequence[int]) -> tuple[str, ...]:
    """Return the name of each axis of a plan.

    Args:
        orientation: Code of the orientation of all arrays; None if it is unknown or differs between them.
        transpose: Axis (z, y, x) of the arrays that is each axis of the plan.
    """
    if orientation is None:
        return tuple("zyx"[axis] for axis in transpose)
    return tuple(axis_name(orientation[axis]) for axis in transpose)


def side_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the labels whose names differ only in a word for left and right, as (left, right)."""
    stems: dict[tuple[str, ...], dict[str, str]] = {}
    for name in names:
        words = _words(name)
        for index, word in enumerate(words):
            side = "left" if _LEFT.fullmatch(word) else "right" if _RIGHT.fullmatch(word) else None
            if side is not None:
                stems.setdefault(_stem(words, index), {})[side] = name
    lettered = _lettered(names)
    return [
        (sides["left"], sides["right"]) for stem, sides in stems.items() if len(sides) == 2 and stem not in lettered
    ]


def _lettered(names: Sequence[str]) -> set[tuple[str, ...]]:
    """Return the stems of labels that letters of the alphabet tell apart, such as zone a to zone g."""
    return {
        _stem(words, index)
        for words in map(_words, names)
        for index, word in enumerate(words)
        if len(word) == 1 and word.isalpha() and word not in SIDE_LETTERS
    }


def _stem(words: Sequence[str], index: int) -> tuple[str, ...]:
    """Return the words of a name without the one at `index`."""
    return (*words[:index], "*", *words[index + 1 :])


def _words(name: str) -> list[str]:
    """Return the words of a label's name. Capitals begin words, also after a single letter: LeftLung, LKidney."""
    return re.findall(r"[a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=\b[LR])(?=[A-Z][a-z])", " ", name).lower())


def _lone_side(names: Sequence[str]) -> str | None:
    """Return a label that a word names by its side, abbreviations and heart chambers not counted; None if none is."""
    return next(
        (
            name
            for name in names
            for word in _words(name)
            if len(word) > 3
            and (_LEFT.fullmatch(word) or _RIGHT.fullmatch(word))
            and not _CHAMBERS.search(name.lower())
        ),
        None,
    )


def _left_right(axis_names: Sequence[str]) -> tuple[int, str]:
    """Return the left-right axis and how a sentence begins that names it.

    If the images share no known orientation, it is taken to be the horizontal one.
    """
    if "left-right" in axis_names:
        return list(axis_names).index("left-right"), "The left-right axis"
    return list(axis_names).index("x"), "The x axis (taken to be left-right: the images share no known orientation)"


def _listed(axis_names: Sequence[str], axes: Iterable[int]) -> str:
    """Return the names of axes in the order of `MIRROR_AXES`, separated by commas."""
    return ", ".join(sorted((axis_names[axis] for axis in axes), key=MIRROR_AXES.index))


def _ordered_pair(fingerprint: Fingerprint, labels: Labels, axis: int) -> tuple[str, str, int] | None:
    """Return the names of two labels that look alike and keep their order along an axis in every case, if any do.

    Regions consist of label values, which are compared as those of classes are. The last item is the number of cases in
    which both occur.
    """
    outputs = {value: [name for name, of in labels.foreground.items() if value in of] for value in labels.values}
    for first, second in combinations(outputs, 2):
        if outputs[first] == outputs[second]:  # the network does not tell them apart
            continue
        cases = [case.labels for case in fingerprint.cases if {first, second} <= case.labels.keys()]
        if len(cases) < MIN_CASES:
            continue
        measured = [(case[first], case[second]) for case in cases]
        gaps = np.array([b.centroid[axis] - a.centroid[axis] for a, b in measured])
        if (gaps >= MIN_GAP).all() or (gaps <= -MIN_GAP).all():
            distance = [
                np.abs(np.subtract(a.mean, b.mean)) / np.maximum(np.maximum(a.std, b.std), 1e-6) for a, b in measured
            ]
            # Alike in every channel, in the typical case.
            if (np.median(distance, axis=0) < ALIKE).all():
                names = [f"label value {v}" if labels.has_regions else outputs[v][0] for v in (first, second)]
                return names[0], names[1], len(cases)
    return None
