"""One colour per label, for the report and for the programs that show segmentations."""

from autocrossdim.records.labels import Labels

PALETTE = (
    *("#56b4e9", "#e69f00", "#f0e442", "#2fc79b", "#ff8f6b", "#e79ac7"),
    *("#e1fff0", "#2dff69", "#a596ff", "#2dffff", "#b4ffb4", "#d2ff00", "#c3b44b"),
    *("#ffff96", "#f0c3d2", "#87c378", "#a5d2ff", "#f0c34b", "#b4e187", "#87e1a5"),
)
"""Colours of labels: first Okabe and Ito's palette for the colour-blind, with dark colours lightened, then those that
are farthest from all before them, in normal vision and in three kinds of colour blindness (simulated). All are bright,
so that outlines are visible on any grey."""


def colours(labels: Labels) -> list[str]:
    """Return the colour of each label. They repeat from the 21st on."""
    return [PALETTE[index % len(PALETTE)] for index in range(len(labels.names))]


def rgb(colour: str) -> tuple[int, int, int]:
    """Return red, green and blue from 0 to 255 of a colour such as `#56b4e9`."""
    red, green, blue = bytes.fromhex(colour.removeprefix("#"))
    return red, green, blue
