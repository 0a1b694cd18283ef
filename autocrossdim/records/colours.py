"""One colour per label, for the report and for the programs that show segmentations."""

from autocrossdim.records.labels import Labels

PALETTE = ("#56b4e9", "#e69f00", "#f0e442", "#2fc79b", "#ff8f6b", "#e79ac7", "#c9b6ff")
"""Colours of labels, after Okabe and Ito's palette for the colour-blind, with the dark colours lightened."""


def colours(labels: Labels) -> list[str]:
    """Return the colour of each label. They repeat if there are many."""
    return [PALETTE[index % len(PALETTE)] for index in range(len(labels.names))]


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue from 0 to 255 of a colour such as `#56b4e9`."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
