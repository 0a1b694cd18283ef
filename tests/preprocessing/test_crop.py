import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autocrossdim.preprocessing.crop import box_shape, crop, nonzero_box


@given(st.integers(0, 2**32 - 1))
def test_the_box_holds_every_voxel_that_is_not_zero_and_no_margin(seed: int) -> None:
    random = np.random.default_rng(seed)
    image = np.zeros((2, 5, 6, 7))
    for _ in range(random.integers(1, 4)):
        image[tuple(random.integers(image.shape))] = -1
    box = nonzero_box(image)
    inside = crop(image, box)
    assert np.count_nonzero(inside) == np.count_nonzero(image)
    assert inside.shape[1:] == box_shape(box)
    for axis in (1, 2, 3):
        ends = np.moveaxis(inside, axis, 0)
        assert ends[0].any()
        assert ends[-1].any()


def test_an_image_of_zeros_is_kept_whole() -> None:
    assert nonzero_box(np.zeros((1, 2, 3, 4))) == ((0, 2), (0, 3), (0, 4))
