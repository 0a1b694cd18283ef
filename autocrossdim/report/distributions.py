"""Histograms of the fingerprint: spacing of the cases, and size and intensity of each label."""

import numpy as np

from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.labels import Labels
from autocrossdim.report.pictures import drawn_name, png

LABELS = 8  # that are drawn
BINS = 15


def fingerprint_chart(fingerprint: Fingerprint, labels: Labels, unit: str) -> bytes:
    """Draw histograms over the cases as PNG: spacing per axis; voxels and mean intensity of the first labels.

    Args:
        fingerprint: Measurements of the cases.
        labels: Labels or regions. The intensity of a region is the mean over its values, weighted by their voxels.
        unit: Unit of the spacing.
    """
    from matplotlib.figure import Figure

    shown = list(labels.foreground.items())[:LABELS]
    figure = Figure(figsize=(7.5, 2.3 + 1.6 * len(shown)), layout="constrained")
    plots = figure.subplots(1 + len(shown), 3, squeeze=False)
    for plot, axis, values in zip(plots[0], "zyx", np.array([c.spacing for c in fingerprint.cases]).T, strict=True):
        plot.hist(values, BINS, color="C0")
        plot.set_xlabel(f"spacing {axis} ({unit})")
    for (sizes, intensities, empty), (name, values) in zip(plots[1:], shown, strict=True):
        voxels = [[case.label_voxels.get(value, 0) for value in values] for case in fingerprint.cases]
        sizes.hist([sum(each) for each in voxels if sum(each)], BINS, color="C0")
        sizes.set_xlabel("voxels")
        sizes.set_title(drawn_name(name), fontsize=9)
        means = []
        for case in fingerprint.cases:
            found = [(case.labels[v].mean[0], case.label_voxels.get(v, 0)) for v in values if v in case.labels]
            if sum(count for _, count in found):
                means.append(np.average([mean for mean, _ in found], weights=[count for _, count in found]))
        intensities.hist(means, BINS, color="C0")
        intensities.set_xlabel("mean intensity (SD)")
        empty.set_axis_off()
    for plot in plots.flat:
        plot.locator_params(nbins=4)
    return png(figure)
