"""Pictures of the report: cases with outlined labels, the Dice of every case, and how sizes agree."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage import measure
from skimage.segmentation import find_boundaries

from autocrossdim.records.colours import colours
from autocrossdim.records.labels import Labels
from autocrossdim.report.scans import Plane, Scan
from autocrossdim.report.sizes import Agreement, Measure
from autocrossdim.system.text import for_matplotlib, printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CASING = "#000000"  # drawn around each line, so that lines are visible on any grey
LEGEND_ENTRIES, LEGEND_WIDTH = 6, 50  # labels and characters per line that fit below a picture
LONGEST_NAME = 30  # characters of a label name that are drawn
THUMBNAIL = 112  # pixels of the larger side
FILLED = 0.45  # opacity of the annotation in a thumbnail


def case_picture(scan: Scan, labels: Labels, *, window: tuple[float, float] | None = None) -> bytes:
    """Draw the slice of a case that `Scan.fullest` names, with letters for the patient's sides at its edges.

    Args:
        scan: The case. The annotation is drawn with solid outlines, the prediction with dashed ones.
        labels: Labels or regions to outline. Regions may overlap.
        window: Intensities shown as black and white; the 1st and 99th percentile if None.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.path import Path
    from matplotlib.patheffects import withStroke

    view = _fullest_slice(scan, window)
    figure = Figure(figsize=(3.2, 3.4), layout="constrained", facecolor="black")
    plot = figure.subplots()
    plot.imshow(view.image, aspect=view.aspect)
    plot.autoscale(False)
    handles = []
    for name, values, colour in zip(labels.names, labels.foreground.values(), colours(labels), strict=True):
        for label, style in ((view.annotation, "solid"), (view.prediction, (0, (3, 1.5)))):
            found = outlines(np.isin(label, values))
            if not found:
                continue
            # Half of each line falls inside the label; the other half would cover that of a label that touches it.
            inside = Path.make_compound_path(*(Path(outline[:, ::-1], closed=True) for outline in found))
            for outline in found:
                (line,) = plot.plot(outline[:, 1], outline[:, 0], color=colour, linestyle=style, linewidth=2.6)
                line.set_path_effects([withStroke(linewidth=4.4, foreground=CASING)])
                line.set_clip_path(inside, plot.transData)
        handles.append(Line2D([], [], color=colour, label=drawn_name(name)))
    for letter, (x, y) in zip(view.plane.marks, ((0.03, 0.5), (0.97, 0.5), (0.5, 0.96), (0.5, 0.04)), strict=False):
        mark = plot.text(x, y, letter, color="white", ha="center", va="center", transform=plot.transAxes)
        mark.set_path_effects([withStroke(linewidth=2, foreground=CASING)])
    plot.set_axis_off()
    if len(handles) <= LEGEND_ENTRIES:
        longest = max(len(str(handle.get_label())) for handle in handles) + 4  # with its line
        columns = min(3, max(1, LEGEND_WIDTH // longest))
        place = {"loc": "outside lower center", "ncols": columns}
        figure.legend(handles=handles, fontsize=8, labelcolor="white", frameon=False, **place)
    return png(figure)


def thumbnail(scan: Scan, labels: Labels, *, window: tuple[float, float] | None = None) -> bytes:
    """Draw the same slice as `case_picture` as a small WebP: the annotation filled, the prediction outlined.

    Args:
        scan: The case.
        labels: Labels or regions to draw.
        window: Intensities shown as black and white; the 1st and 99th percentile if None.
    """
    view = _fullest_slice(scan, window)
    height, width = view.image.shape[:2]
    scale = THUMBNAIL / max(height * view.aspect, width)
    size = max(1, round(scale * width)), max(1, round(scale * height * view.aspect))
    image = Image.fromarray((255 * view.image).round().astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)
    drawn = np.array(image, np.float64)

    def enlarged(label: NDArray[Any], values: Sequence[int]) -> NDArray[np.bool_]:
        mask: NDArray[np.bool_] = np.array(Image.fromarray(np.isin(label, values)).resize(size))
        return mask

    for values, colour in zip(labels.foreground.values(), colours(labels), strict=True):
        rgb = np.array([int(colour[start : start + 2], 16) for start in (1, 3, 5)])
        filled = enlarged(view.annotation, values)
        drawn[filled] = (1 - FILLED) * drawn[filled] + FILLED * rgb
        drawn[find_boundaries(enlarged(view.prediction, values), mode="inner")] = rgb
    stream = io.BytesIO()
    Image.fromarray(drawn.round().astype(np.uint8)).save(stream, "WEBP", quality=75)
    return stream.getvalue()


@dataclass(frozen=True)
class _Slice:
    """One slice of a case, around its labels.

    Attributes:
        plane: Its plane.
        image: Colours from 0 to 1, shape (rows, columns, 3).
        annotation: Label values, shape (rows, columns).
        prediction: Label values, shape (rows, columns).
        aspect: Height of a pixel divided by its width.
    """

    plane: Plane
    image: NDArray[np.float64]
    annotation: NDArray[Any]
    prediction: NDArray[Any]
    aspect: float


def _fullest_slice(scan: Scan, window: tuple[float, float] | None) -> _Slice:
    plane = scan.acquired()
    scan = scan.one_slice(plane, scan.fullest(plane.axis)).around_labels()
    image = plane.slice(scan.image, 0)
    low, high = np.percentile(image, (1, 99)) if window is None else window
    grey = np.clip((image - low) / max(high - low, 1e-6), 0, 1)
    return _Slice(
        plane=plane,
        image=np.moveaxis(np.broadcast_to(grey, (3, *grey.shape[1:])), 0, -1),
        annotation=plane.slice(scan.annotation, 0),
        prediction=plane.slice(scan.prediction, 0),
        aspect=scan.spacing[plane.rows] / scan.spacing[plane.columns],
    )


def outlines(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return the closed outlines of a mask (Y, X), each as points (n, 2) in voxels, halfway between voxel centres."""
    return [outline - 1 for outline in measure.find_contours(np.pad(mask, 1).astype(float), 0.5)]


def dice_chart(dice: Mapping[str, Sequence[float]]) -> bytes:
    """Draw the Dice of every case, one row per label, with a line at the mean.

    Args:
        dice: Dice of the cases by label name; NaN where neither annotation nor segmentation has the label.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 0.7 + (0.45 if len(dice) <= 8 else 0.28) * len(dice)), layout="constrained")
    plot = figure.subplots()
    random = np.random.default_rng(0)
    for row, values in enumerate(dice.values()):
        known = np.array([value for value in values if np.isfinite(value)])
        plot.scatter(known, row + random.uniform(-0.18, 0.18, len(known)), s=14, alpha=0.8, color="C0", linewidths=0)
        if len(known):
            plot.plot([known.mean()] * 2, [row - 0.35, row + 0.35], color="C3", linewidth=1.5)
    plot.set_yticks(range(len(dice)), [drawn_name(name) for name in dice])
    plot.set_ylim(len(dice) - 0.5, -0.5)
    plot.set_xlim(-0.02, 1.02)
    plot.set_xlabel("Dice")
    plot.grid(axis="x", alpha=0.3)
    return png(figure)


def agreement_chart(agreement: Agreement, measure: Measure) -> bytes:
    """Draw the sizes of one label: prediction against annotation, and their difference against their mean."""
    from matplotlib.figure import Figure

    annotated, predicted = np.array(agreement.annotated), np.array(agreement.predicted)
    figure = Figure(figsize=(7.5, 2.9))
    figure.suptitle(drawn_name(agreement.name), fontsize=10)
    figure.subplots_adjust(left=0.1, right=0.96, bottom=0.18, top=0.88, wspace=0.3)
    left, right = figure.subplots(1, 2)
    ends = 0, 1.05 * max(annotated.max(), predicted.max())
    left.plot(ends, ends, color="0.6", linewidth=1)
    left.scatter(annotated, predicted, s=14, alpha=0.7, color="C0", linewidths=0, clip_on=False)
    left.set(xlim=ends, ylim=ends, xlabel=f"annotation ({measure.unit})", ylabel=f"prediction ({measure.unit})")
    right.axhline(0, color="0.6", linewidth=1)
    right.scatter((annotated + predicted) / 2, predicted - annotated, s=14, alpha=0.7, color="C0", linewidths=0)
    right.axhline(agreement.bias, color="C3", linewidth=1.5)
    for end in agreement.limits:
        if np.isfinite(end):
            right.axhline(end, color="C3", linewidth=1, linestyle="dashed")
    right.set(xlabel=f"mean of both ({measure.unit})", ylabel=f"difference ({measure.unit})")
    for plot in (left, right):
        plot.grid(alpha=0.3)
    return png(figure)


def drawn_name(name: str) -> str:
    """Return a label's name as it is drawn: printable, shortened, and kept even if it starts with an underscore.

    Matplotlib leaves labels that start with an underscore out of legends.
    """
    short = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    return for_matplotlib(printable(f" {short}" if short.startswith("_") else short))


def png(figure: "Figure") -> bytes:
    """Return a figure as PNG."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
