from pathlib import Path

import numpy as np

from autocrossdim.preprocessing.positions import ANNOTATED, read_positions, write_positions
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


def test_annotated_voxels_are_kept_where_others_are_ignored(tmp_path: Path) -> None:
    labels = Labels(foreground={"organ": (1,)}, ignore=2)
    label = np.full((3, 4, 5), 2, np.uint8)
    label[0, 1, 2], label[2, 3, 4] = 1, 0
    write_positions(tmp_path / "case.npz", label, labels)
    assert read_positions(tmp_path / "case.npz")[ANNOTATED].tolist() == [[0, 1, 2], [2, 3, 4]]
    write_positions(tmp_path / "case.npz", np.minimum(label, 1), labels)
    assert read_positions(tmp_path / "case.npz").keys() == {"organ"}
