import pytest
from hypothesis import given
from hypothesis import strategies as st

from planners.topology import SMALLEST_FEATURE_MAP, padded, topology


@pytest.mark.parametrize(
    ("what", "shape", "spacing", "strides", "kernels"),
    [
        (
            "hippocampus: small cubes, two levels are dropped",
            (36, 50, 35),
            (1, 1, 1),
            [(2, 2, 2)] * 3,
            [(3, 3, 3)] * 4,
        ),
        (
            "prostate: the coarse axis joins after two levels, and ends at 5 slices",
            (20, 320, 256),
            (3.6, 0.625, 0.625),
            [(1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2)],
            [(1, 3, 3), (1, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)],
        ),
        (
            "liver: nearly cubic, all five levels everywhere",
            (128, 128, 128),
            (1, 0.767, 0.767),
            [(2, 2, 2)] * 5,
            [(3, 3, 3)] * 6,
        ),
        ("a slice of 256 x 256", (256, 256), (1.3, 1.3), [(2, 2)] * 5, [(3, 3)] * 6),
        ("one slice thick", (1, 32, 32), (5, 1, 1), [(1, 2, 2)] * 3, [(1, 3, 3)] * 4),
        ("too small to be halved", (5, 6, 7), (1, 1, 1), [(1, 1, 1)], [(3, 3, 3)] * 2),
    ],
)
def test_worked_examples(what, shape, spacing, strides, kernels) -> None:  # type: ignore[no-untyped-def]
    result = topology(shape, spacing, 5)
    assert list(result.strides) == strides, what
    assert list(result.kernel_sizes) == kernels, what


SHAPES = st.lists(st.integers(1, 400), min_size=2, max_size=3)


@given(SHAPES, st.data())
def test_no_axis_is_halved_away(shape: list[int], data: st.DataObject) -> None:
    spacing = [data.draw(st.floats(0.2, 12)) for _ in shape]
    result = topology(tuple(shape), tuple(spacing), 5)
    assert len(result.strides) <= 5
    assert len(result.kernel_sizes) == len(result.strides) + 1
    patch = padded(tuple(shape), result.total_stride)
    for n, p, total in zip(shape, patch, result.total_stride, strict=True):
        assert n <= p < n + total
        assert total == 1 or p // total >= SMALLEST_FEATURE_MAP
    for before, after in zip(result.kernel_sizes, result.kernel_sizes[1:], strict=False):
        assert all(a >= b for a, b in zip(after, before, strict=True))
