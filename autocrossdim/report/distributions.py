"""Histograms of the fingerprint: spacing of the cases, and size and intensity of each label."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.labels import Labels
from autocrossdim.report.pictures import drawn_name, png

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LABELS = 8  # that are drawn
BINS = 15


def fingerprint_chart(fingerprint: Fingerprint, labels: Labels, unit: str, *, ct: bool = False) -> bytes:
    """Draw histograms over the cases as PNG: spacing per axis; voxels and mean intensity of the first labels.

    Args:
        fingerprint: Measurements of the cases.
        labels: Labels or regions. The intensity of a region is the mean over its values, weighted by their voxels.
        unit: Unit of the spacing.
        ct: Whether the first channel is CT, whose intensities are then drawn in HU if all cases were measured in HU.
    """
    from matplotlib.figure import Figure

    shown = list(labels.foreground.items())[:LABELS]
    rows = (len(shown) + 1) // 2  # two labels side by side
    figure = Figure(figsize=(7.5, 1.8 + 1.7 * rows), layout="constrained")
    top, below = figure.subfigures(2, 1, squeeze=False, height_ratios=(1.8, 1.7 * rows)).flat
    axes = "zyx"[-fingerprint.dims :]
    spacings = np.array([case.spacing for case in fingerprint.cases]).T[-fingerprint.dims :]
    for plot, axis, values in zip(top.subplots(1, len(axes)), axes, spacings, strict=True):
        _histogram(plot, values, f"spacing {axis} ({unit})")
    in_hu = ct and all(case.intensity_std for case in fingerprint.cases)
    scale = "HU" if in_hu else "SD"
    pairs = below.subplots(rows, 4, squeeze=False).reshape(-1, 2)
    for (sizes, intensities), (name, values) in zip(pairs, shown, strict=False):
        voxels = [[case.label_voxels.get(value, 0) for value in values] for case in fingerprint.cases]
        _histogram(sizes, [sum(each) for each in voxels if sum(each)], "voxels")
        sizes.set_title(drawn_name(name), fontsize=9, loc="left")
        _histogram(intensities, list(_means(fingerprint, values, in_hu=in_hu)), f"mean intensity ({scale})")
    for plot in pairs[len(shown) :].flat:
        plot.set_axis_off()
    return png(figure)


def _means(fingerprint: Fingerprint, values: Sequence[int], *, in_hu: bool) -> Iterator[float]:
    """Yield the mean intensity of label values in the first channel of each case that has them."""
    for case in fingerprint.cases:
        found = [(case.labels[v].mean[0], case.label_voxels.get(v, 0)) for v in values if v in case.labels]
        if sum(count for _, count in found):
            mean = float(np.average([mean for mean, _ in found], weights=[count for _, count in found]))
            yield mean * case.intensity_std[0] if in_hu else mean


def _histogram(plot: "Axes", values: Sequence[float] | NDArray[np.float64], name: str) -> None:
    plot.hist(values, BINS, color="C0")
    plot.set_xlabel(name, fontsize=8)
    plot.tick_params(labelsize=8)
    plot.locator_params(axis="x", nbins=3)
    plot.locator_params(axis="y", nbins=4, integer=True)
