import math

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from autocrossdim.data.converting.layouts import camus as layout
from autocrossdim.evaluation.registry import Case
from autocrossdim.evaluation.scores import camus
from autocrossdim.evaluation.scores.simpson import View, view, volume
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError

LABELS = Labels.from_dataset_json(layout.LABELS)


def ventricle(
    length: float, width: float, *, tilt: float = 0.0, base: float = 1.0, spacing: tuple[float, float] = (0.5, 0.4)
) -> np.ndarray:
    """Return an ellipse with its apex up, cut off at `base` times its half length below the centre; mm, degrees."""
    y, x = np.meshgrid(*(np.arange(n) * step for n, step in zip((260, 300), spacing, strict=True)), indexing="ij")
    y, x = y - 65, x - 60
    cos, sin = math.cos(math.radians(tilt)), math.sin(math.radians(tilt))
    along, across = y * cos + x * sin, -y * sin + x * cos
    mask = ((2 * along / length) ** 2 + (2 * across / width) ** 2 <= 1) & (along <= base * length / 2)
    return np.asarray(mask)


def test_volumes_are_those_of_the_organisers() -> None:
    spacing = (0.4, 0.4)
    ellipses = {"2CH ED": (90, 50, 12, 0.5), "2CH ES": (72, 38, -8, 0.5), "4CH ED": (94, 46, 0, 0.6)}
    ellipses["4CH ES"] = (76, 36, 15, 0.45)
    views: dict[str, View] = {}
    for name, (length, width, tilt, base) in ellipses.items():
        found = view(ventricle(length, width, tilt=tilt, base=base, spacing=spacing), spacing)
        assert found is not None
        views[name] = found
    # What script_camus_ef.ipynb of the organisers computes from these masks, without its rounding.
    expected = {"2CH ED": 67.717058, "2CH ES": 54.207011, "4CH ED": 75.226591, "4CH ES": 55.288335}
    assert {name: each.length for name, each in views.items()} == pytest.approx(expected)
    lengths = expected.values()
    assert volume(views["2CH ED"], views["4CH ED"], lengths=lengths) == pytest.approx(100.569960)
    assert volume(views["2CH ES"], views["4CH ES"], lengths=lengths) == pytest.approx(59.948272)


@pytest.mark.parametrize(("tilt", "spacing"), [(0, (0.5, 0.4)), (20, (0.4, 0.5))])
def test_the_volume_of_a_ventricle_with_a_flat_base(tilt: float, spacing: tuple[float, float]) -> None:
    length, cut = 110.0, 0.4  # an ellipsoid cut off at the mitral annulus
    views = [view(ventricle(length, width, tilt=tilt, base=cut, spacing=spacing), spacing) for width in (52, 46)]
    assert views[0] is not None
    assert views[1] is not None
    half = length / 2
    expected = math.pi / 4 * 52 * 46 * half * ((cut - cut**3 / 3) + 2 / 3) / 1000
    assert views[0].length == pytest.approx(half * (1 + cut), rel=0.04)
    # The rule takes the diameter at the base end of each disc, so it tends to be above the true volume.
    assert 0.98 < volume(views[0], views[1]) / expected < 1.08


def test_specks_beside_the_ventricle_and_tiny_masks() -> None:
    mask = ventricle(90, 50)
    with_speck = mask.copy()
    with_speck[5:9, 5:9] = True
    clean, speckled = view(mask, (0.5, 0.4)), view(with_speck, (0.5, 0.4))
    assert clean is not None
    assert speckled is not None
    assert clean.length == speckled.length
    assert (clean.diameters == speckled.diameters).all()

    assert view(np.zeros((9, 9), np.bool_), (1.0, 1.0)) is None
    upright = np.zeros((60, 9), np.bool_)
    upright[:, 4] = True
    assert view(upright, (1.0, 1.0)) is not None


def test_contours_agree_with_all_pairwise_distances() -> None:
    spacing = (0.5, 0.4)
    prediction, reference = ventricle(60, 30, tilt=8)[::2, ::2], ventricle(63, 27)[::2, ::2]
    borders = [np.argwhere(each & ~ndimage.binary_erosion(each)) * spacing for each in (prediction, reference)]
    between = cdist(*borders)
    distances = np.concatenate([between.min(0), between.min(1)])
    assert camus.contours(prediction, reference, spacing) == {
        "Dice": pytest.approx(2 * (prediction & reference).sum() / (prediction.sum() + reference.sum())),
        "HD (mm)": pytest.approx(distances.max(), rel=1e-4),
        "MAD (mm)": pytest.approx(distances.mean(), rel=1e-4),
    }
    empty = np.zeros((3, 4), np.bool_)
    assert camus.contours(empty, ~empty, (1.0, 1.0)) == {"Dice": 0, "HD (mm)": 5, "MAD (mm)": 5}
    assert all(math.isnan(value) for value in camus.contours(empty, empty, (1.0, 1.0)).values())


def frame(name: str, lengths: tuple[float, float]) -> camus.Frame:
    """Return a measured case, with ventricles of two lengths in prediction and reference; 0 is none."""
    arrays = []
    for length in lengths:
        array = np.zeros((260, 300), np.uint8)
        if length:
            array[ventricle(length + 12, 0.6 * length + 12)] = 2
            array[ventricle(length, 0.6 * length)] = 1
        array[-20:, 100:150] = 3
        arrays.append(array)
    return camus.measure(Case(name, arrays[0], arrays[1], (0.5, 0.4), camus.structures(LABELS)))


def test_ejection_fractions_per_patient_and_what_is_left_out() -> None:
    lengths = {"ED": (80.0, 80.0), "ES": (60.0, 50.0)}
    cases = {
        f"{patient}_{view}_{phase}": frame(f"{patient}_{view}_{phase}", lengths[phase])
        for patient in ("patient0001", "patient0002", "patient0003", "patient0004")
        for view, phase in (("2CH", "ED"), ("2CH", "ES"), ("4CH", "ED"), ("4CH", "ES"))
    }
    del cases["patient0003_2CH_ES"]
    cases["patient0004_4CH_ED"] = frame("patient0004_4CH_ED", (0.0, 80.0))
    cases["patient0002_2CH_ES"] = frame("patient0002_2CH_ES", (55.0, 40.0))
    score = camus.report(cases)

    ours, theirs = (score.cases["patient0001"]["ejection fraction (%)"][side] for side in ("prediction", "reference"))
    # Discs of both phases have the same height, so only the diameters count.
    assert ours == pytest.approx(100 * (1 - (60 / 80) ** 2), abs=2)
    assert theirs == pytest.approx(100 * (1 - (50 / 80) ** 2), abs=2)
    assert score.notes == (
        "Left out of the ejection fraction: patient0003 (no 2CH ES), "
        "patient0004 (no left ventricle with a base in a segmentation).",
    )
    contours, ventricles = score.tables
    assert "2 patients" in ventricles.title
    both = [score.cases[patient]["ejection fraction (%)"] for patient in ("patient0001", "patient0002")]
    errors = [each["prediction"] - each["reference"] for each in both]
    assert ventricles.rows["ejection fraction (%)"]["bias"] == pytest.approx(sum(errors) / 2)
    assert ventricles.rows["ejection fraction (%)"]["SD"] == pytest.approx(abs(errors[0] - errors[1]) / math.sqrt(2))
    assert ventricles.rows["ejection fraction (%)"]["MAE"] == pytest.approx(-sum(errors) / 2)
    assert math.isnan(ventricles.rows["EDV (ml)"]["correlation"])  # all reference volumes are equal

    assert list(contours.rows) == [
        f"{name}, {phase}" for name in ("LV endocardium", "LV epicardium", "left atrium") for phase in ("ED", "ES")
    ]
    assert contours.rows["LV endocardium, ED"]["Dice"] == pytest.approx(7 / 8)  # one of eight is missed
    assert contours.rows["left atrium, ES"] == {"Dice": 1, "HD (mm)": 0, "MAD (mm)": 0}


def test_agreement_is_that_of_numpy() -> None:
    ours, theirs = [50.0, 62.0, 40.0], [55.0, 60.0, 38.0]
    assert camus.agreement(ours, theirs) == {
        "correlation": pytest.approx(np.cov(ours, theirs)[0, 1] / (np.std(ours, ddof=1) * np.std(theirs, ddof=1))),
        "bias": pytest.approx(-1 / 3),
        "SD": pytest.approx(math.sqrt(((-5 + 1 / 3) ** 2 + 2 * (2 + 1 / 3) ** 2) / 2)),
        "MAE": pytest.approx(3),
    }
    assert math.isnan(camus.agreement(ours[:2], theirs[:2])["correlation"])  # a line passes through any two points


def test_cases_and_labels_are_named_as_convert_names_them() -> None:
    assert (camus.VIEWS, camus.PHASES) == (layout.VIEWS, layout.PHASES)
    assert camus.structures(LABELS) == {"LV endocardium": (1,), "LV epicardium": (1, 2), "left atrium": (3,)}
    with pytest.raises(UserError, match="no label is named LV myocardium, left atrium"):
        camus.structures(Labels(foreground={"lv endocardium": (1,)}))
    array = np.zeros((4, 4), np.uint8)
    for name, shape, message in (("heart", (4, 4), "heart is not named by patient"), ("p_2CH_ED", (2, 4, 4), "is 3D")):
        broad = np.broadcast_to(array, shape)
        with pytest.raises(UserError, match=message):
            camus.measure(Case(name, broad, broad, (1.0,) * len(shape), {}))
