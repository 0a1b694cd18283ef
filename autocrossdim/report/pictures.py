"""Pictures of a report, as PNG bytes: cases with the outlines of truth and segmentation, and Dice case by case."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autocrossdim.data.images import read_image, read_label
from autocrossdim.records.labels import Labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN = 0.5  # of the labelled box, shown around it on each side
LEAST_MARGIN = 12  # voxels


def case_picture(images: Sequence[Path], reference: Path, prediction: Path, labels: Labels) -> bytes:
    """Draw the slice of a case that holds most of its labels.

    Args:
        images: of the case; the first channel is shown.
        reference: the true label, drawn with whole lines.
        prediction: the segmentation, drawn with broken lines; not where the truth is to be ignored.
        labels: each is outlined; regions may lie in each other.

    Raises:
        UserError: a file cannot be read.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    expected, geometry = read_label(reference)
    found, _ = read_label(prediction)
    image = read_image(images).array[0]
    # Slices as they were taken: across the axis of the thickest voxels.
    axis = 0 if image.shape[0] == 1 else int(np.argmax(geometry.spacing))
    image, expected, found = (np.moveaxis(array, axis, 0) for array in (image, expected, found))
    if labels.ignore is not None:
        found = np.where(expected == labels.ignore, 0, found)
        expected = np.where(expected == labels.ignore, 0, expected)
    inside = (expected > 0) | (found > 0)
    number = int(inside.sum(axis=(1, 2)).argmax()) if inside.any() else len(image) // 2
    window = tuple(_window(inside[number].any(axis=other)) for other in (1, 0))
    image, expected, found = (array[number][window] for array in (image, expected, found))
    spacing = [mm for other, mm in enumerate(geometry.spacing) if other != axis]

    figure = Figure(figsize=(3.2, 3.4), layout="constrained")
    plot = figure.subplots()
    low, high = np.percentile(image, (1, 99))
    plot.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=spacing[0] / spacing[1])
    handles = []
    for colour, (name, values) in enumerate(labels.foreground.items()):
        shade = f"C{colour % 10}"
        for label, style in ((expected, "solid"), (found, "dashed")):
            within = np.isin(label, values)
            if within.any() and min(within.shape) > 1:
                plot.contour(within, levels=[0.5], colors=[shade], linestyles=[style], linewidths=1.2)
        handles.append(Line2D([], [], color=shade, label=name))
    plot.set_axis_off()
    if len(handles) <= 6:
        figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=7, frameon=False)
    return _png(figure)


def dice_chart(dice: Mapping[str, Sequence[float]]) -> bytes:
    """Draw the Dice of every case, a row a label; the line is the mean.

    Args:
        dice: by the label's name; NaN where neither truth nor segmentation has it.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 0.7 + 0.45 * len(dice)), layout="constrained")
    plot = figure.subplots()
    random = np.random.default_rng(0)
    for row, values in enumerate(dice.values()):
        there = np.array([value for value in values if np.isfinite(value)])
        plot.scatter(there, row + random.uniform(-0.18, 0.18, len(there)), s=14, alpha=0.6, color="C0", linewidths=0)
        if len(there):
            plot.plot([there.mean()] * 2, [row - 0.35, row + 0.35], color="C3", linewidth=1.5)
    plot.set_yticks(range(len(dice)), list(dice))
    plot.set_ylim(len(dice) - 0.5, -0.5)
    plot.set_xlim(-0.02, 1.02)
    plot.set_xlabel("Dice")
    plot.grid(axis="x", alpha=0.3)
    return _png(figure)


def _window(occupied: np.ndarray) -> slice:
    """Return where a labelled box lies along an axis, with a margin; all of it if nothing is labelled."""
    there = np.flatnonzero(occupied)
    if len(there) == 0:
        return slice(None)
    margin = max(LEAST_MARGIN, int(MARGIN * (there[-1] - there[0] + 1)))
    return slice(max(0, int(there[0]) - margin), int(there[-1]) + 1 + margin)


def _png(figure: "Figure") -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
