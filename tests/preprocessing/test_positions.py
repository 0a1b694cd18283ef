from pathlib import Path

import numpy as np

from autocrossdim.preprocessing.positions import read_positions, write_positions
from autocrossdim.records.labels import Labels


def test_positions_come_back_by_name_whatever_a_label_is_called(tmp_path: Path) -> None:
    label = np.zeros((3, 4, 5), np.uint8)
    label[0, 1, 2], label[2, 3, 4] = 1, 2
    names = {"file": (1,), "allow_pickle": (2,), "absent": (3,)}
    write_positions(tmp_path / "case.npz", label, Labels(foreground=names))
    found = read_positions(tmp_path / "case.npz")
    assert {name: positions.tolist() for name, positions in found.items()} == {
        "file": [[0, 1, 2]],
        "allow_pickle": [[2, 3, 4]],
    }
