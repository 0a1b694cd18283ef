from itertools import combinations

import numpy as np
import pytest

from autocrossdim.records.colours import PALETTE, colours, rgb
from autocrossdim.records.labels import Labels


def test_twenty_labels_have_different_colours() -> None:
    labels = Labels(foreground={f"label {value}": (value,) for value in range(1, 22)})
    found = colours(labels)
    assert len(set(found[:20])) == 20
    assert found[20] == found[0] == PALETTE[0]


# From linear red, green and blue to those that look the same without a kind of cone (Machado et al. 2009, severity 1).
VISIONS = {
    "normal": np.eye(3),
    "protanopia": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
    "deuteranopia": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    "tritanopia": [[1.2555, -0.0767, -0.1788], [-0.0784, 0.9308, 0.1476], [0.0047, 0.6914, 0.3039]],
}


def lab(colour: str, vision: str) -> np.ndarray:
    """Return lightness, a and b (CIE 1976) of a colour as it appears to someone."""
    value = np.array(rgb(colour)) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(VISIONS[vision]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    x, y, z = (np.cbrt(t) if t > 0.008856 else 7.787 * t + 16 / 116 for t in xyz / (0.9505, 1, 1.089))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISIONS)
def test_colours_can_be_told_apart_in_colour_blindness(vision: str) -> None:
    """A difference of 2.3 is just noticeable."""
    seen = {colour: lab(colour, vision) for colour in PALETTE}
    nearest = min(combinations(PALETTE, 2), key=lambda pair: np.linalg.norm(seen[pair[0]] - seen[pair[1]]))
    assert np.linalg.norm(seen[nearest[0]] - seen[nearest[1]]) >= 10, nearest
