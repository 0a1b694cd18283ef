import pytest
from hypothesis import given
from hypothesis import strategies as st

from planners.topology import SMALLEST_FEATURE_MAP, Topology, padded, topology


@pytest.mark.parametrize(
    ("example", "shape", "spacing", "strides", "kernels"),
    [
        (
            "hippocampus: isotropic and small, two levels are dropped",
            (36, 50, 35),
            (1, 1, 1),
            [(2, 2, 2)] * 3,
            [(3, 3, 3)] * 4,
        ),
        (
            "prostate: the coarse axis joins at the third level and stops at 5 slices",
            (20, 320, 256),
            (3.6, 0.625, 0.625),
            [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)],
            [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)],
        ),
        (
            "liver: nearly isotropic, all five levels on every axis",
            (128, 128, 128),
            (1, 0.767, 0.767),
            [(2, 2, 2)] * 5,
            [(3, 3, 3)] * 6,
        ),
        ("a slice of 256 × 256 pixels", (256, 256), (1.3, 1.3), [(2, 2)] * 5, [(3, 3)] * 6),
        ("a single slice", (1, 32, 32), (5, 1, 1), [(1, 2, 2)] * 3, [(1, 3, 3)] * 4),
        ("too small to be halved", (5, 6, 7), (1, 1, 1), [(1, 1, 1)], [(3, 3, 3)] * 2),
    ],
)
def test_worked_examples(example, shape, spacing, strides, kernels) -> None:  # type: ignore[no-untyped-def]
    result = topology(shape, spacing, 5)
    assert list(result.strides) == strides, example
    assert list(result.kernel_sizes) == kernels, example


@given(st.lists(st.integers(1, 400), min_size=2, max_size=3), st.data())
def test_no_axis_is_halved_too_often(shape: list[int], data: st.DataObject) -> None:
    spacing = [data.draw(st.floats(0.2, 12)) for _ in shape]
    result = topology(tuple(shape), tuple(spacing), 5)
    assert len(result.strides) <= 5
    assert len(result.kernel_sizes) == len(result.strides) + 1
    patch = padded(tuple(shape), result.total_stride)
    for n, side, total in zip(shape, patch, result.total_stride, strict=True):
        assert n <= side < n + total
        assert total == 1 or side // total >= SMALLEST_FEATURE_MAP
    for before, after in zip(result.kernel_sizes, result.kernel_sizes[1:], strict=False):
        assert all(a >= b for a, b in zip(after, before, strict=True)), "kernels never become flat again"


def test_levels_are_appended_where_the_encoder_cannot_end_earlier() -> None:
    short = Topology(strides=((1, 2),), kernel_sizes=((1, 3), (3, 3)))
    assert short.ending_at((2, 3, 4, 5)) == Topology(((1, 2), (1, 1)), ((1, 3), (3, 3), (3, 3)))
    assert short.ending_at((1, 2)) == short
    assert short.ending_at((2, 3)).total_stride == short.total_stride
