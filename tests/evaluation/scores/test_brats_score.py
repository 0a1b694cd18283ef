import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from autocrossdim.evaluation.registry import Case
from autocrossdim.evaluation.scores.brats import lesion_wise, measure, regions, report
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError

MM = (1.0, 1.0, 1.0)
FULL = np.ones((3, 3, 3), bool)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def hd95(a: np.ndarray, b: np.ndarray, spacing: tuple[float, ...]) -> float:
    borders = [np.argwhere(each & ~ndimage.binary_erosion(each)) * spacing for each in (a, b)]
    between = cdist(*borders)
    return float(max(np.percentile(between.min(0), 95), np.percentile(between.min(1), 95)))


def organisers(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...]) -> tuple[float, ...]:
    """Return lesion Dice and HD95, found, missed and false, in the order of steps of the organisers' code."""
    structure = ndimage.generate_binary_structure(3, 2)
    predicted, _ = ndimage.label(prediction, FULL)
    dilated, n_lesions = ndimage.label(ndimage.binary_dilation(reference, structure, iterations=3), FULL)
    found, values, hits = 0, [], [0]
    for number in range(1, n_lesions + 1):
        lesion = reference & (dilated == number)
        near = ndimage.binary_dilation(lesion, structure, iterations=3)
        touching = np.unique(predicted[near & (predicted > 0)])
        hits += list(touching)
        if lesion.sum() * np.prod(spacing) <= 50:
            continue
        match = np.isin(predicted, touching)
        found += len(touching) > 0
        values.append((dice(match, lesion), hd95(match, lesion, spacing)) if len(touching) else (0, 374))
    false = len(np.setdiff1d(predicted, hits))
    missed = len(values) - found
    values += [(0, 374)] * false
    return (*(np.mean(values, 0) if values else (1, 0)), found, missed, false)


@pytest.mark.parametrize("seed", range(4))
def test_lesion_wise_scores_follow_the_steps_of_the_organisers(seed: int) -> None:
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(2):
        centres = rng.integers(0, (24, 26, 60), (7, 3))
        grid = np.stack(np.meshgrid(*(np.arange(n) for n in (24, 26, 60)), indexing="ij"), -1)
        distance = np.linalg.norm(grid[..., None, :] - centres, axis=-1)
        masks.append((distance < rng.uniform(1.5, 4.5, 7)).any(-1))
    prediction, reference = masks
    prediction[:, :, :20] = reference[:, :, :20]
    spacing = (1.0, 1.0, 1.5)
    assert tuple(lesion_wise(prediction, reference, spacing).values()) == pytest.approx(
        organisers(prediction, reference, spacing), rel=1e-4
    )


def test_a_worked_example() -> None:
    reference, prediction = np.zeros((20, 20, 80), np.bool_), np.zeros((20, 20, 80), np.bool_)
    reference[5:9, 5:9, 5:9] = prediction[5:9, 5:9, 5:9] = True  # found
    reference[5:9, 5:9, 14:18] = True  # its dilation meets that of the first: the same lesion
    reference[5:9, 5:9, 30:34] = True  # missed
    reference[5:8, 5:8, 45:48] = True  # 27 mm3: not counted
    prediction[8, 8, 49] = True  # touches the small one: no false positive
    prediction[15, 15, 70] = prediction[16, 16, 71] = True  # one false positive
    values = lesion_wise(prediction, reference, MM)
    assert (values["found"], values["missed"], values["false"]) == (1, 1, 1)
    assert values["lesion Dice"] == pytest.approx((2 / 3 + 0 + 0) / 3)
    assert values["lesion HD95 (mm)"] == pytest.approx((9 + 374 + 374) / 3)


def test_empty_masks() -> None:
    labels = Labels(
        foreground={"Whole Tumor": (1, 2, 3), "tumour_core": (1, 3), "ET": (3,)}, regions_class_order=(2, 1, 3)
    )
    structures = regions(labels)
    assert structures == {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,)}
    reference, prediction = np.zeros((12, 12, 12), np.uint8), np.zeros((12, 12, 12), np.uint8)
    reference[2:8, 2:8, 2:8] = 2
    prediction[2:8, 2:8, 2:8] = 2
    prediction[3:7, 3:7, 3:7] = 1
    cases = {"a": measure(Case("a", prediction, reference, MM, structures))}
    rows = cases["a"]
    assert rows["WT"]["Dice"] == rows["WT"]["lesion Dice"] == 1
    assert (rows["TC"]["Dice"], rows["TC"]["HD95 (mm)"], rows["TC"]["false"]) == (0, 374, 1)
    assert (rows["TC"]["lesion Dice"], rows["TC"]["lesion HD95 (mm)"]) == (0, 374)
    assert (rows["ET"]["Dice"], rows["ET"]["HD95 (mm)"]) == (1, 0)
    assert (rows["ET"]["lesion Dice"], rows["ET"]["lesion HD95 (mm)"]) == (1, 0)

    cases["b"] = measure(Case("b", np.zeros_like(reference), reference, MM, structures))
    (table,) = report(cases).tables
    assert table.rows["WT"] | {"HD95 (mm)": 0} == {
        "Dice": 0.5,
        "HD95 (mm)": 0,
        "lesion Dice": 0.5,
        "lesion HD95 (mm)": 187,
        "found": 1,
        "missed": 1,
        "false": 0,
    }


def test_labels_without_the_regions_are_refused() -> None:
    with pytest.raises(UserError, match=r"named as WT, TC; the labels are necrosis, oedema, enhancing tumour"):
        regions(Labels(foreground={"necrosis": (1,), "oedema": (2,), "enhancing tumour": (3,)}))
