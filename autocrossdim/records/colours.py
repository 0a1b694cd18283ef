"""One colour per label, for the report and for the programs that show segmentations."""

from autocrossdim.records.labels import Labels

PALETTE = (
    *("#56b4e9", "#e69f00", "#f0e442", "#2fc79b", "#ff8f6b", "#e79ac7", "#c9b6ff"),
    *("#a6e22e", "#00e5ff", "#ff7df4", "#d9ad80", "#9db2ff", "#ffffff"),
    *("#bbe1f6", "#f5d999", "#f9f4b3", "#ace9d7", "#ffd2c4", "#f5d7e9", "#e9e2ff"),
)
"""Colours of labels: after Okabe and Ito's palette for the colour-blind, with the dark colours lightened; then further
bright colours; then the first ones paler. All are bright, so that outlines are visible on any grey."""


def colours(labels: Labels) -> list[str]:
    """Return the colour of each label. They repeat from the 21st on."""
    return [PALETTE[index % len(PALETTE)] for index in range(len(labels.names))]


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue from 0 to 255 of a colour such as `#56b4e9`."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
