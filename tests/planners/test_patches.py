import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from planners.patches import DS_DEPTH, descending_patches, padded_patch

SPACINGS = st.tuples(st.floats(0.3, 12), st.floats(0.3, 2), st.floats(0.3, 2))
SHAPES = st.tuples(st.integers(1, 300), st.integers(16, 512), st.integers(16, 512))
DEPTHS = st.sampled_from([(1, 2, 3, 4, 5), (2, 3, 4, 5)])


@given(SHAPES, SPACINGS, DEPTHS)
def test_patches_get_smaller_from_the_median_shape_on(
    shape: tuple[int, ...], spacing: tuple[float, ...], depths: tuple[int, ...]
) -> None:
    found = descending_patches(shape, spacing, depths=depths)
    sides = [np.array(each.patch) for each in found]
    assert (sides[0] >= shape).all()
    assert all((larger >= smaller).all() for larger, smaller in itertools.pairwise(sides))
    for each in found:
        assert (np.array(each.patch) % each.topology.total_stride == 0).all()
        assert len(each.topology.strides) in depths


def test_ds_net_gets_enough_slices_and_halves_in_plane_only() -> None:
    thin = padded_patch((2, 64, 64), (1.0, 1.0, 1.0), depths=(1, 2, 3, 4, 5), kind="ds")
    assert thin.patch == (DS_DEPTH, 64, 64)
    assert {stride[0] for stride in thin.topology.strides} == {1}
