import math
from itertools import product

import numpy as np
import pytest

from autocrossdim.evaluation.scores.lesions import detection, report


def flood(mask: np.ndarray) -> list[set[tuple[int, ...]]]:
    """Return the components of a mask, in which voxels that touch at a corner are connected, as sets of positions."""
    left = {tuple(position) for position in np.argwhere(mask).tolist()}
    components = []
    while left:
        component, front = set(), [left.pop()]
        while front:
            here = front.pop()
            component.add(here)
            near = {tuple(np.add(here, step).tolist()) for step in product((-1, 0, 1), repeat=mask.ndim)} & left
            left -= near
            front += near
        components.append(component)
    return components


@pytest.mark.parametrize(("share", "shape"), [(0.06, (6, 9, 10)), (0.09, (6, 9, 10)), (0.15, (20, 20))])
def test_detection_agrees_with_a_flood_fill(share: float, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    prediction, reference = rng.random((2, *shape)) < share
    predicted, expected = flood(prediction), flood(reference)
    dice = []
    for lesion in expected:
        touching = [component for component in predicted if component & lesion]
        if touching:
            union = set().union(*touching)
            dice.append(2 * len(union & lesion) / (len(union) + len(lesion)))
    false = sum(not any(component & lesion for lesion in expected) for component in predicted)
    assert dice
    assert false > 0
    assert detection(prediction, reference) == {
        "lesions": len(expected),
        "found": len(dice),
        "false positives": false,
        "Dice": pytest.approx(np.mean(dice)),
    }


def test_a_prediction_that_joins_two_lesions_finds_both() -> None:
    reference = np.zeros((5, 12), np.bool_)
    reference[1:3, 1:4] = reference[1:3, 6:9] = True
    prediction = np.zeros_like(reference)
    prediction[1:3, 1:9] = True
    assert detection(prediction, reference)["found"] == 2
    assert detection(prediction, reference)["Dice"] == pytest.approx(2 * 6 / (16 + 6))


def test_all_lesions_count_alike_whatever_case_they_are_in() -> None:
    cases = {
        "a": {"lesion": {"lesions": 4, "found": 3, "false positives": 0, "Dice": 0.8}},
        "b": {"lesion": {"lesions": 1, "found": 1, "false positives": 3, "Dice": 0.4}},
        "c": {"lesion": {"lesions": 0, "found": 0, "false positives": 0, "Dice": math.nan}},
    }
    (table,) = report(cases).tables
    assert table.rows["lesion"] == {
        "lesions": 5,
        "found": 4,
        "sensitivity": 0.8,
        "false positives": 3,
        "false positives per case": 1,
        "Dice": pytest.approx((3 * 0.8 + 0.4) / 4),
    }
