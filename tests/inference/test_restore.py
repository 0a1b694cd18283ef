import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autocrossdim.inference.restore import lines_for, places, slices_at_original_resolution, strips_of, to_label
from autocrossdim.preprocessing.case import Placement
from autocrossdim.preprocessing.resample import resample_image
from autocrossdim.records.labels import Labels

LABELS = Labels.from_dataset_json({"background": 0, "a": 3, "b": 255}, None)
SIZES = st.tuples(*[st.integers(1, 12)] * 3)


def placement(cropped: tuple[int, int, int], shape: tuple[int, int, int], **changes: object) -> Placement:
    spacing = (1.0, 1.0, 1.0)
    box = tuple((0, n) for n in cropped)
    fields = {
        "original_shape": cropped,
        "transpose": (0, 1, 2),
        "box": box,
        "spacing": spacing,
        "target": spacing,
        "shape": shape,
    }
    return Placement.model_validate({**fields, **changes})


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, st.lists(st.integers(1, 5), min_size=12, max_size=12), st.integers(0, 1000))
@example((5, 5, 5), (1, 1, 1), [1] * 12, 0)  # only the middle is needed
def test_slabs_are_resampled_like_the_whole_volume(
    shape: tuple[int, int, int], new: tuple[int, int, int], cuts: list[int], seed: int
) -> None:
    volume = np.random.default_rng(seed).normal(size=(2, *shape)).astype(np.float32)
    slabs, start = [], 0
    for depth in cuts:
        slabs.append(torch.from_numpy(volume[:, start : start + depth]))
        start += depth
    slices = slices_at_original_resolution([s for s in slabs if s.shape[1]], placement(new, shape))
    found = torch.stack(list(slices), dim=1).numpy()
    np.testing.assert_allclose(found, resample_image(volume, new, (1, 1, 1)), atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(SIZES, SIZES, st.integers(1, 5), st.booleans())
def test_strips_are_resampled_like_the_whole_volume(
    shape: tuple[int, int, int], new: tuple[int, int, int], count: int, coarse_lines: bool
) -> None:
    volume = torch.randn(2, *shape)
    where = placement(new, shape, spacing=(1.0, 4.0, 1.0)) if coarse_lines else placement(new, shape)
    whole = torch.stack(list(slices_at_original_resolution([volume], where)), dim=1)
    found = torch.full_like(whole, torch.nan)
    for strip in strips_of(where, count):
        slices = slices_at_original_resolution([volume[:, :, lines_for(where, strip)]], where, strip)
        for z, logits in enumerate(slices):
            found[:, z, strip] = logits
    torch.testing.assert_close(found, whole)


def test_places_cover_every_line_of_every_slice_once_strip_by_strip() -> None:
    where = placement((3, 10, 4), (3, 5, 4))
    strips = [slice(0, 4), slice(4, 8), slice(8, 10)]
    assert strips_of(where, 3) == strips
    assert list(places(where, 3)) == [(z, strip) for strip in strips for z in range(3)]


def test_regions_are_painted_in_their_order() -> None:
    labels = Labels.from_dataset_json({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
    probabilities = torch.tensor([[0.9, 0.9, 0.1], [0.1, 0.9, 0.1]])
    np.testing.assert_array_equal(to_label(probabilities, labels), [1, 2, 0])
