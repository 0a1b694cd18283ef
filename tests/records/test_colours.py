from autocrossdim.records.colours import PALETTE, colours
from autocrossdim.records.labels import Labels


def test_twenty_labels_have_different_colours() -> None:
    labels = Labels(foreground={f"label {value}": (value,) for value in range(1, 22)})
    found = colours(labels)
    assert len(set(found[:20])) == 20
    assert found[20] == found[0] == PALETTE[0]
