import numpy as np
import pytest

from planners.decision import Choice, choose, mixed_note
from planners.spacing import CaseSizes

Triple = tuple[float, float, float]
ANISOTROPIC, ISOTROPIC = (6.0, 1.0, 1.0), (1.0, 1.0, 1.0)


def decide(spacing: Triple, shape: tuple[int, int, int] = (100, 200, 200), threshold: float = 3.0) -> Choice:
    return choose(CaseSizes(np.array([spacing] * 5), np.array([shape] * 5)), threshold)


def note_on(*spacings: Triple) -> str | None:
    return mixed_note(CaseSizes(np.array(spacings), np.array([(100, 200, 200)] * len(spacings))), 3.0)


@pytest.mark.parametrize(
    ("spacing", "configuration", "is_close"),
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
def test_anisotropy_decides_and_close_calls_are_reported(spacing: Triple, configuration: str, is_close: bool) -> None:
    choice = decide(spacing)
    assert choice.configuration == configuration
    other = {"dx": "omnia", "omnia": "dx"}[configuration]
    assert any(f"--config {other}" in reason for reason in choice.reasons) == is_close


def test_reasons_give_the_numbers() -> None:
    assert decide((10.0, 1.367, 1.367)).reasons[0] == (
        "Slices are 10 mm apart and pixels are 1.37 mm wide, a ratio of 7.32."
    )
    assert decide((1.0, 0.8, 0.8)).reasons[0] == (
        "The spacing is 1 mm along the coarsest axis and 0.8 mm along the finest, a ratio of 1.25."
    )


def test_the_threshold_can_be_changed() -> None:
    assert decide((3.5, 1.0, 1.0), threshold=4.0).configuration == "dx"


def test_volumes_of_few_slices_are_segmented_in_2d() -> None:
    choice = decide(ISOTROPIC, shape=(5, 100, 100))
    assert choice.configuration == "omnia"
    assert "only 5 slices" in choice.reasons[0]
    assert decide(ISOTROPIC, shape=(5, 12, 12)).configuration == "dx", "small along every axis, not thin"


def test_2d_images_leave_no_choice() -> None:
    choice = choose(CaseSizes(np.array([(1.0, 0.1, 0.1)]), np.array([(1, 200, 200)])), 3.0, dims=2)
    assert (choice.configuration, choice.anisotropy) == ("omnia", 1.0)


def test_mixed_datasets_are_reported() -> None:
    assert note_on(*[ISOTROPIC] * 10) is None
    assert note_on(*[ANISOTROPIC] * 10) is None
    note = note_on(*[ANISOTROPIC] * 3, *[ISOTROPIC] * 7)
    assert note is not None
    assert "3 of 10" in note
