"""Pictures of the report as PNG bytes: cases with outlined labels, and the Dice of every case."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from skimage import measure

from autocrossdim.data.annotated_slices import read_annotation, slice_axis
from autocrossdim.data.images import read_image, read_label
from autocrossdim.records.labels import Labels
from autocrossdim.system.text import for_matplotlib, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARGIN = 0.5  # margin around the labelled box on each side, as a share of its extent
LEAST_MARGIN = 12  # voxels
LEGEND_ENTRIES, LEGEND_WIDTH = 6, 50  # labels and characters per line that fit below a picture
LONGEST_NAME = 30  # characters of a label name that are drawn


def case_picture(images: Sequence[Path], reference: Path, prediction: Path, labels: Labels) -> bytes:
    """Draw the slice of a case that contains most labelled voxels.

    Args:
        images: Channels of the case; the first is shown.
        reference: Annotation, drawn with solid outlines.
        prediction: Segmentation, drawn with dashed outlines. Voxels to be ignored in the annotation are left out.
        labels: Labels or regions to outline. Regions may overlap.

    Raises:
        UserError: A file cannot be read.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    expected, geometry = read_annotation(reference, labels)
    predicted, _ = read_label(prediction)
    image = read_image(images).array[0]
    axis = slice_axis(geometry)
    image, expected, predicted = (np.moveaxis(array, axis, 0) for array in (image, expected, predicted))
    ignored = labels.ignored(expected)
    shown = {value for values in labels.foreground.values() for value in values}
    labelled = (np.isin(expected, list(shown)) | np.isin(predicted, list(shown))) & ~ignored
    predicted, expected = np.where(ignored, 0, predicted), np.where(ignored, 0, expected)
    number = int(labelled.sum(axis=(1, 2)).argmax()) if labelled.any() else len(image) // 2
    window = tuple(_window(labelled[number].any(axis=other)) for other in (1, 0))
    image, expected, predicted = (array[number][window] for array in (image, expected, predicted))
    spacing = [mm for other, mm in enumerate(geometry.spacing) if other != axis]

    figure = Figure(figsize=(3.2, 3.4), layout="constrained")
    plot = figure.subplots()
    low, high = np.percentile(image, (1, 99))
    plot.imshow(image, cmap="gray", vmin=low, vmax=max(high, low + 1e-6), aspect=spacing[0] / spacing[1])
    plot.autoscale(False)
    handles = []
    for index, (name, values) in enumerate(labels.foreground.items()):
        colour = f"C{index % 10}"
        for label, style in ((expected, "solid"), (predicted, "dashed")):
            for outline in outlines(np.isin(label, values)):
                plot.plot(outline[:, 1], outline[:, 0], color=colour, linestyle=style, linewidth=1.2)
        handles.append(Line2D([], [], color=colour, label=_drawn(name)))
    plot.set_axis_off()
    if len(handles) <= LEGEND_ENTRIES:
        longest = max(len(str(handle.get_label())) for handle in handles) + 4  # with its line
        columns = min(3, max(1, LEGEND_WIDTH // longest))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=7, frameon=False)
    return _png(figure)


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return the closed outlines of a mask (Y, X), each as points (n, 2) in voxels, halfway between voxel centres."""
    return [outline - 1 for outline in measure.find_contours(np.pad(mask, 1).astype(float), 0.5)]


def dice_chart(dice: Mapping[str, Sequence[float]]) -> bytes:
    """Draw the Dice of every case, one row per label, with a line at the mean.

    Args:
        dice: Dice of the cases by label name; NaN where neither annotation nor segmentation has the label.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 0.7 + 0.45 * len(dice)), layout="constrained")
    plot = figure.subplots()
    random = np.random.default_rng(0)
    for row, values in enumerate(dice.values()):
        known = np.array([value for value in values if np.isfinite(value)])
        plot.scatter(known, row + random.uniform(-0.18, 0.18, len(known)), s=14, alpha=0.6, color="C0", linewidths=0)
        if len(known):
            plot.plot([known.mean()] * 2, [row - 0.35, row + 0.35], color="C3", linewidth=1.5)
    plot.set_yticks(range(len(dice)), [_drawn(name) for name in dice])
    plot.set_ylim(len(dice) - 0.5, -0.5)
    plot.set_xlim(-0.02, 1.02)
    plot.set_xlabel("Dice")
    plot.grid(axis="x", alpha=0.3)
    return _png(figure)


def _drawn(name: str) -> str:
    """Return a label's name as it is drawn: printable, shortened, and kept even if it starts with an underscore.

    Matplotlib leaves labels that start with an underscore out of legends.
    """
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return for_matplotlib(printable(f" {short}" if short.startswith("_") else short))


def _window(occupied: NDArray[np.bool_]) -> slice:
    """Return the labelled part of an axis with a margin; the whole axis if nothing is labelled."""
    indices = np.flatnonzero(occupied)
    if len(indices) == 0:
        return slice(None)
    margin = max(LEAST_MARGIN, int(MARGIN * (indices[-1] - indices[0] + 1)))
    return slice(max(0, int(indices[0]) - margin), int(indices[-1]) + 1 + margin)


def _png(figure: "Figure") -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
