import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from autocrossdim.evaluation.registry import Case
from autocrossdim.evaluation.scores.chaos import measure, organ, report

SPACING = (3.0, 1.0, 0.5)


def blobs(seed: int, shape: tuple[int, ...] = (8, 14, 15)) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return np.asarray(smooth > np.quantile(smooth, 0.6))


def border(mask: np.ndarray) -> np.ndarray:
    """Return positions in mm of the voxels with a neighbour inside the image but outside the mask."""
    padded = np.pad(mask, 1, constant_values=True)
    moved = [np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (-1, 1)]
    return np.argwhere(mask & ~np.logical_and.reduce(moved)) * SPACING


@pytest.mark.parametrize("seed", [0, 1])
def test_metrics_and_score_agree_with_all_pairwise_distances(seed: int) -> None:
    reference = blobs(seed)
    prediction = np.roll(reference, 1, 1)
    assert reference[:, 0].any()  # the border of the image is no surface
    values = organ(prediction, reference, SPACING)

    between = cdist(border(prediction), border(reference))
    distances = np.concatenate([between.min(1), between.min(0)])
    dice = 2 * (prediction & reference).sum() / (prediction.sum() + reference.sum())
    ravd = abs(prediction.sum() - reference.sum()) / reference.sum() * 100
    scores = (
        100 * dice if dice >= 0.8 else 0,
        100 - 20 * ravd,
        100 - 20 / 3 * distances.mean(),
        100 - 5 / 3 * distances.max(),
    )
    assert values["Dice"] == pytest.approx(dice)
    assert values["RAVD (%)"] == pytest.approx(ravd)
    assert values["ASSD (mm)"] == pytest.approx(distances.mean(), rel=1e-4)
    assert values["MSSD (mm)"] == pytest.approx(distances.max(), rel=1e-4)
    assert values["score"] == pytest.approx(np.mean(np.maximum(scores, 0)), rel=1e-4)


def test_values_beyond_a_threshold_score_nothing() -> None:
    mask = np.zeros((1, 1, 200), np.bool_)
    reference, prediction = mask.copy(), mask.copy()
    reference[..., 10:110] = True
    prediction[..., 10:116] = True  # RAVD 6 %
    thick = tuple(np.broadcast_to(each, (40, 40, 200)) for each in (prediction, reference))
    values = organ(*thick, (1.0, 1.0, 1.0))
    assert values["RAVD (%)"] == pytest.approx(6)
    expected = (100 * 200 / 206, 0, 100 - 20 / 3 * values["ASSD (mm)"], 100 - 5 / 3 * 6)
    assert values["score"] == pytest.approx(np.mean(expected))

    values = organ(*thick, (1.0, 1.0, 11.0))  # MSSD 66 mm, Dice unchanged
    assert values["MSSD (mm)"] == pytest.approx(66)
    assert values["score"] < np.mean((100 * 200 / 206, 0, 100, 1))

    reference[..., 10:110] = prediction[..., 10:116] = False
    reference[..., 10:110] = prediction[..., 32:132] = True  # Dice 0.78, RAVD 0
    thick = tuple(np.broadcast_to(each, (4, 4, 200)) for each in (prediction, reference))
    values = organ(*thick, (1.0, 1.0, 0.01))
    assert values["Dice"] == pytest.approx(0.78)
    assert values["score"] == pytest.approx(75, abs=0.5)


def test_absent_organs() -> None:
    empty, some = np.zeros((4, 5, 6), np.bool_), blobs(3, (4, 5, 6))
    assert all(math.isnan(value) for value in organ(empty, empty, SPACING).values())
    missed, invented = organ(empty, some, SPACING), organ(some, empty, SPACING)
    assert (missed["score"], missed["Dice"], missed["RAVD (%)"]) == (0, 0, 100)
    assert (invented["score"], invented["Dice"]) == (0, 0)
    assert organ(some, some, SPACING)["score"] == 100


def test_the_overall_score_is_the_mean_over_cases_of_the_mean_over_organs() -> None:
    array = np.zeros((6, 8, 9), np.uint8)
    array[1:4, 1:5, 1:4], array[1:4, 1:5, 5:8] = 1, 2
    second = np.where(array == 2, 0, array)
    structures = {"liver": (1,), "spleen": (2,)}
    cases = {
        name: measure(Case(name, prediction, array, SPACING, structures))
        for name, prediction in (("a", array), ("b", second))
    }
    score = report(cases)
    (table,) = score.tables
    assert {name: row["score"] for name, row in table.rows.items()} == {"liver": 100, "spleen": 50, "all organs": 75}
    assert "of b:" in score.notes[0]
