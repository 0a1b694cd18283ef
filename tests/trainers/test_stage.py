import numpy as np
import pytest

from trainers.stage import perturb

NEVER = {"empty": 0.0, "morphology": 0.0, "component": 0.0}


def masks() -> np.ndarray:
    """Two masks of a patch: two cubes of different size, and nothing."""
    result = np.zeros((2, 24, 24, 24), np.uint8)
    result[0, 4:10, 4:10, 4:10] = result[0, 15:18, 15:18, 15:18] = 1
    return result


def perturbed(seed: int = 0, **probabilities: float) -> np.ndarray:
    changed = masks()
    perturb(changed, np.random.default_rng(seed), **{**NEVER, **probabilities}, exclusive=True)
    return changed


def test_probabilities_of_zero_leave_masks_as_they_are() -> None:
    np.testing.assert_array_equal(perturbed(), masks())


def test_all_masks_are_emptied_together() -> None:
    assert not perturbed(empty=1.0).any()


@pytest.mark.parametrize("corner", [12, 0], ids=["inside", "at the border"])
def test_a_mask_is_dilated_eroded_opened_or_closed(corner: int) -> None:
    cube = np.zeros((1, 40, 40, 40), np.uint8)
    cube[:, corner : corner + 13, corner : corner + 13, corner : corner + 13] = 1  # no operator reaches further
    changes = []
    for seed in range(200):
        after = cube.copy()
        perturb(after, np.random.default_rng(seed), **{**NEVER, "morphology": 1.0}, exclusive=True)
        assert (after >= cube).all() or (after <= cube).all()
        changes.append(np.sign(int(after.sum()) - int(cube.sum())))
    # A cube is open and closed already.
    assert [abs(changes.count(sign) / 200 - share) < 0.1 for sign, share in ((1, 0.25), (-1, 0.25), (0, 0.5))] == [
        True
    ] * 3


def test_small_parts_are_opened_away_and_gaps_closed_and_an_empty_mask_stays_empty() -> None:
    seen = set()
    for seed in range(200):
        changed = perturbed(seed, morphology=1.0)
        assert not changed[1].any()
        seen.add(int(changed[0].sum()))
    opened, gone, unchanged, joined = 6**3, 0, 6**3 + 3**3, 14**3
    assert {opened, gone, unchanged} < seen
    assert max(seen) > joined / 2


def test_a_mask_that_grows_takes_voxels_from_exclusive_ones_only() -> None:
    for exclusive in (True, False):
        overlaps = []
        for seed in range(10):
            both = np.zeros((2, 24, 24), np.uint8)
            both[0, 2:10], both[1, 10:18] = 1, 1
            perturb(both, np.random.default_rng(seed), **{**NEVER, "morphology": 1.0}, exclusive=exclusive)
            overlaps.append(int((both.sum(axis=0) > 1).sum()))
        assert (max(overlaps) == 0) is exclusive


@pytest.mark.parametrize("seed", range(3))
def test_one_connected_component_is_removed(seed: int) -> None:
    removed = masks()[0].astype(int) - perturbed(seed, component=1.0)[0]
    assert removed.sum() in (6**3, 3**3)


def test_a_component_that_covers_much_of_the_patch_is_kept() -> None:
    large = np.ones((1, 8, 8, 8), np.uint8)
    perturb(large, np.random.default_rng(0), **{**NEVER, "component": 1.0}, exclusive=True)
    assert large.all()
