"""Name and colour of each label value, for programs that show label maps: one value, one name, one colour."""

from dataclasses import dataclass
from pathlib import Path

from autocrossdim.records.colours import colours, rgb
from autocrossdim.records.labels import Labels
from autocrossdim.system.files import write_text
from autocrossdim.system.text import printable

ITK_SNAP = "itksnap_labels.txt"


@dataclass(frozen=True)
class NamedValue:
    """A label value.

    Attributes:
        value: Value in the segmentation.
        name: Name of the label; of a value that belongs to several regions, all their names.
        colour: Red, green and blue, 0 to 255.
    """

    value: int
    name: str
    colour: tuple[int, int, int]


def named_values(labels: Labels) -> list[NamedValue]:
    """Return the values that a segmentation can hold, ascending, background left out."""
    painted = labels.regions_class_order or [values[0] for values in labels.foreground.values()]
    colour = dict(zip(painted, colours(labels), strict=True))
    return [
        NamedValue(
            value,
            printable(" + ".join(name for name, values in labels.foreground.items() if value in values)),
            rgb(colour[value]),
        )
        for value in sorted(set(painted))
    ]


def write_itksnap(output: Path, labels: Labels) -> None:
    """Write a label description file for ITK-SNAP (Segmentation > Import Label Descriptions)."""
    lines = ['    0     0    0    0        0  0  0    "Clear Label"']
    for each in named_values(labels):
        red, green, blue = each.colour
        name = each.name.replace('"', "'")
        lines.append(f'{each.value:5d} {red:5d} {green:4d} {blue:4d}        1  1  1    "{name}"')
    header = "# ITK-SnAP Label Description File: IDX R G B A VIS MSH LABEL\n"
    write_text(output / ITK_SNAP, header + "\n".join(lines) + "\n")
