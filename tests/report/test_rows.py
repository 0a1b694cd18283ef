from autocrossdim.report.rows import Row, described


def test_a_caption_names_the_first_missed_labels_only() -> None:
    ribs = [f"rib {number}" for number in range(1, 25)]
    row = Row(name="a", group="a", dice=0.5, hd95=3.0, labels={}, missed=ribs, false_alarms=["liver"])
    text = described(row, "mm")
    assert text.startswith("Dice 0.500, HD95 3.0 mm where found, missed: rib 1, ")
    assert text.endswith("rib 8 and 16 more, false alarm: liver.")
