from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from autocrossdim.records.labels import Labels
from autocrossdim.report.pictures import case_picture, dice_chart, outlines
from autocrossdim.report.scans import read_scan


def test_the_outline_of_a_voxel_passes_halfway_to_its_neighbours() -> None:
    mask = np.zeros((3, 4), bool)
    mask[1, 2] = True
    (outline,) = outlines(mask)
    assert sorted({tuple(point) for point in outline.tolist()}) == [(0.5, 2), (1, 1.5), (1, 2.5), (1.5, 2)]


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(bool, st.tuples(st.integers(1, 6), st.integers(1, 6))))
def test_outlines_are_closed_and_enclose_every_mask_even_at_the_border(mask: np.ndarray) -> None:
    found = outlines(mask)
    assert bool(found) == mask.any()
    assert all((outline[0] == outline[-1]).all() for outline in found)


@pytest.mark.parametrize("name", [r"$\foo$", "$x_$", "$", "_hidden", "a%b", "{x}", "^_\\", "a\nb", "x" * 200])
@pytest.mark.filterwarnings("error")
def test_any_label_name_can_be_drawn(name: str, write_image: Callable[..., Path], tmp_path: Path) -> None:
    label = np.zeros((1, 20, 20), np.uint8)
    label[0, 5:9, 5:9] = 1
    image = write_image(tmp_path / "image.nii.gz", label * 9.0)
    reference = write_image(tmp_path / "label.nii.gz", label)
    labels = Labels(foreground={name: (1,)})
    assert case_picture(read_scan([image], reference, reference, labels), labels)
    assert dice_chart({name: [0.5, 0.7]})
