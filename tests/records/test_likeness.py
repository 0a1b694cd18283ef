import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from autocrossdim.records.likeness import IMAGE_MEASURES, Familiarity, Likeness, Measure
from autocrossdim.system.errors import UserError


def measure(*cases: tuple[float, ...], centre: float = 10.0, deviation: float = 2.0) -> Measure:
    count = len(cases[0])
    return Measure(centre=(centre,) * count, deviation=(deviation,) * count, cases=cases)


def likeness(**changes: Any) -> Likeness:
    fields = {
        "configuration": "dx",
        "image": {name: measure((0.0,)) for name in IMAGE_MEASURES},
        "features": {"dx/fold_0": measure((0.0, 0.0)), "dx/fold_1": measure((1.0, 1.0))},
        "limits": dict.fromkeys([*IMAGE_MEASURES, "features"], 2.0),
        "n_cases": 8,
        "n_unlike": 0,
    }
    return Likeness.model_validate(fields | changes)


def ordinary() -> dict[str, np.ndarray]:
    return {name: np.array([10.0]) for name in IMAGE_MEASURES}


def test_the_distance_is_the_mean_of_those_to_the_three_nearest_cases_in_deviations() -> None:
    cases = measure((0.0,), (1.0,), (-3.0,), (50.0,))
    assert cases.distance(np.array([10.0])) == pytest.approx((0 + 1 + 3) / 3)
    assert cases.distance(np.array([12.0])) == pytest.approx((1 + 0 + 4) / 3)
    assert measure((0.0,)).distance(np.array([16.0])) == pytest.approx(3)
    # The distance is per number, so that measures of many numbers have limits of the same size.
    assert measure((0.0,) * 4).distance(np.array([10.0, 10.0, 10.0, 18.0])) == pytest.approx(math.sqrt(4**2 / 4))


def test_the_score_is_the_largest_distance_in_units_of_its_limit_with_its_name() -> None:
    found = likeness().compare({**ordinary(), "size": np.array([10 + 2 * 2 * 3.1]), "texture": np.array([13.0])}, {})
    assert found.differs_in == "size"
    assert found.score == pytest.approx(3.1)
    assert found.is_unlike
    assert found.sentence(adapted=False) == (
        "unlike the training data (size in mm, 3.1 times the limit). Check the image, and treat this segmentation with "
        "caution."
    )
    assert not likeness().compare(ordinary(), {}).is_unlike


def test_another_contrast_comes_with_a_remedy_that_was_not_applied_yet() -> None:
    found = Familiarity(score=2, differs_in="intensity")
    assert found.sentence(adapted=False).endswith("--image-statistics 0.2 may help.")
    assert found.sentence(adapted=True).endswith("with caution.")


def test_features_are_compared_network_by_network_and_unknown_networks_left_out() -> None:
    numbers = np.array([16.0, 16.0])  # 3 deviations from the centre
    features = {"dx/fold_0": numbers, "dx/fold_1": numbers, "dx/fold_all": numbers * 100}
    found = likeness().compare(ordinary(), features)
    assert (found.differs_in, found.score) == ("features", pytest.approx((3 + 2) / 2 / 2))
    assert likeness().compare(ordinary(), {"dx/fold_all": numbers}).score == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": {}}, "measures of the image"),
        ({"limits": dict.fromkeys(IMAGE_MEASURES, 1.0)}, "every measure needs one limit"),
        ({"limits": dict.fromkeys([*IMAGE_MEASURES, "features"], 0.0)}, "greater than 0"),
        ({"limits": dict.fromkeys([*IMAGE_MEASURES, "features"], math.nan)}, "finite"),
        ({"features": {"dx/fold_0": {"centre": [0], "deviation": [1], "cases": [[0, 0]]}}}, "same number of numbers"),
        ({"features": {"dx/fold_0": {"centre": [0], "deviation": [0], "cases": [[0]]}}}, "greater than 0"),
        ({"features": {"dx/fold_0": {"centre": [0], "deviation": [1], "cases": []}}}, "at least 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        likeness(**changes)


def test_reference_cases_of_another_network_are_an_error_with_the_remedy() -> None:
    with pytest.raises(UserError, match=r"of 2 numbers, but this model has 3\. Run `autocrossdim find_best` again"):
        likeness().compare(ordinary(), {"dx/fold_0": np.zeros(3)})
