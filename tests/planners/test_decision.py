import numpy as np
import pytest

from planners.decision import choose, mixed_note


def decide(spacing: tuple[float, ...], shape: tuple[int, ...] = (100, 200, 200), threshold: float = 3.0):  # type: ignore[no-untyped-def]
    return choose(np.array([spacing] * 5), np.array([shape] * 5), threshold)


@pytest.mark.parametrize(
    ("spacing", "configuration", "close"),
    [
        ((1.0, 1.0, 1.0), "dx", False),
        ((1.9, 1.0, 1.0), "dx", False),
        ((2.0, 1.0, 1.0), "dx", True),
        ((2.99, 1.0, 1.0), "dx", True),
        ((3.0, 1.0, 1.0), "omnia", True),
        ((4.0, 1.0, 1.0), "omnia", True),
        ((4.1, 1.0, 1.0), "omnia", False),
        ((10.0, 1.367, 1.367), "omnia", False),
    ],
)
def test_anisotropy_decides_and_close_cases_are_said(
    spacing: tuple[float, ...], configuration: str, close: bool
) -> None:
    choice = decide(spacing)
    assert choice.configuration == configuration
    other = {"dx": "omnia", "omnia": "dx"}[configuration]
    assert any(f"--config {other}" in reason for reason in choice.reasons) == close


def test_the_threshold_is_a_field() -> None:
    assert decide((3.5, 1.0, 1.0), threshold=4.0).configuration == "dx"


def test_few_slices_count_as_well() -> None:
    choice = decide((1.0, 1.0, 1.0), shape=(5, 100, 100))
    assert choice.configuration == "omnia"
    assert "only 5 slices" in choice.reasons[0]
    assert decide((1.0, 1.0, 1.0), shape=(5, 12, 12)).configuration == "dx"


def test_mixed_datasets_are_said() -> None:
    thick, cubic = (6.0, 1.0, 1.0), (1.0, 1.0, 1.0)
    assert mixed_note(np.array([cubic] * 10), 3.0) is None
    assert mixed_note(np.array([thick] * 10), 3.0) is None
    note = mixed_note(np.array([thick] * 3 + [cubic] * 7), 3.0)
    assert note is not None
    assert "3 of 10" in note
