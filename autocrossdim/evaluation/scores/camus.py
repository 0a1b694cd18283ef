"""The evaluation of CAMUS: distances between contours per structure and phase, and the ejection fraction.

Source: Leclerc et al., Deep Learning for Segmentation Using an Open Large-Scale Dataset in 2D Echocardiography, IEEE
Transactions on Medical Imaging 38 (2019) 2198-2210. Both views count as cases of their phase. HD is the largest and MAD
the mean distance in mm from the border pixels of either mask to the other's border. A structure in only one of the two
segmentations has Dice 0 and the image's diagonal as distances; in neither, it is left out.

The ejection fraction is 100 x (EDV - ESV) / EDV, with volumes by Simpson's biplane rule from the masks of the left
ventricle's cavity, computed as the organisers do (`simpson.py`), and is compared with that from the reference masks.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from autocrossdim.evaluation.metrics import Mask, surface_distances
from autocrossdim.evaluation.registry import Case, Structures, score
from autocrossdim.evaluation.scores.masks import cropped, diagonal, dice, mean_rows
from autocrossdim.evaluation.scores.simpson import View, view, volume
from autocrossdim.records.labels import Labels
from autocrossdim.records.score import Rows, Score, ScoreTable, Values
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import counted, listed

ENDOCARDIUM, MYOCARDIUM, ATRIUM = "LV endocardium", "LV myocardium", "left atrium"
"""Names of the labels, as `autocrossdim convert` writes them."""
EPICARDIUM = "LV epicardium"

VIEWS, PHASES = ("2CH", "4CH"), ("ED", "ES")
QUANTITIES = ("ejection fraction (%)", "EDV (ml)", "ESV (ml)")
_CASE = re.compile(rf"(?P<patient>.+)_(?P<view>{'|'.join(VIEWS)})_(?P<phase>{'|'.join(PHASES)})")


@dataclass(frozen=True)
class Frame:
    """What is kept of one case.

    Attributes:
        patient: Name of the patient.
        view: `2CH` or `4CH`.
        phase: `ED` or `ES`.
        rows: Dice, HD and MAD of each structure.
        predicted: Left ventricle of the prediction; None if it has none, or no base is found.
        expected: Left ventricle of the reference; None likewise.
    """

    patient: str
    view: str
    phase: str
    rows: Rows
    predicted: View | None
    expected: View | None


def structures(labels: Labels) -> Structures:
    """Return the label values of endocardium, epicardium (endocardium and myocardium together) and atrium.

    Raises:
        UserError: One of the labels is not declared.
    """
    named = {name.lower(): values for name, values in labels.foreground.items()}
    names = (ENDOCARDIUM, MYOCARDIUM, ATRIUM)
    if missing := [name for name in names if name.lower() not in named]:
        raise UserError(
            f"--score camus: no label is named {listed(missing)}; the labels are {listed(labels.names)}. Pass "
            f"--dataset with a dataset.json that declares {listed(names)}, as `autocrossdim convert` writes it."
        )
    endocardium, myocardium, atrium = (named[name.lower()] for name in names)
    return {ENDOCARDIUM: endocardium, EPICARDIUM: (*endocardium, *myocardium), ATRIUM: atrium}


def report(cases: Mapping[str, Frame]) -> Score:
    """Return the means per structure and phase, and the agreement of ejection fractions and volumes."""
    means = {
        phase: mean_rows({name: frame.rows for name, frame in cases.items() if frame.phase == phase})
        for phase in PHASES
        if any(frame.phase == phase for frame in cases.values())
    }
    names = (ENDOCARDIUM, EPICARDIUM, ATRIUM)
    rows = {f"{name}, {phase}": of_phase[name] for name in names for phase, of_phase in means.items()}
    patients, left_out = _patients(cases.values())
    tables = [ScoreTable(title="CAMUS: means over cases", rows=rows)]
    if patients:
        tables.append(ScoreTable(title=f"Left ventricle of {counted(len(patients), 'patient')}", rows=_agree(patients)))
    named = ", ".join(f"{patient} ({reason})" for patient, reason in left_out.items())
    return Score(
        name="camus",
        tables=tuple(tables),
        notes=(f"Left out of the ejection fraction: {named}.",) if left_out else (),
        cases={**{name: frame.rows for name, frame in cases.items()}, **patients},
    )


@score("camus", report, structures=structures)
def measure(case: Case) -> Frame:
    """Return the metrics of each structure and the discs of the left ventricle.

    Raises:
        UserError: The case is not named after patient, view and phase, or is not 2D.
    """
    match = _CASE.fullmatch(case.name)
    if match is None:
        raise UserError(
            f"--score camus: case {case.name} is not named by patient, view and phase, such as patient0001_2CH_ED. "
            "Name the files as `autocrossdim convert` does."
        )
    if case.reference.ndim != 2:
        raise UserError(f"--score camus: case {case.name} is 3D, but CAMUS has 2D images.")
    rows, ventricles = {}, []
    for name, predicted, expected in case.masks():
        rows[name] = contours(predicted, expected, case.spacing)
        if name == ENDOCARDIUM:
            ventricles = [view(mask, case.spacing) for mask in (predicted, expected)]
    return Frame(match["patient"], match["view"], match["phase"], rows, *ventricles)


def contours(prediction: Mask, reference: Mask, spacing: tuple[float, ...]) -> Values:
    """Return Dice, and the maximum (HD) and mean (MAD) distance between the contours, of one structure."""
    overlap = dice(prediction, reference)
    if not prediction.any() or not reference.any():
        distance = math.nan if math.isnan(overlap) else diagonal(reference.shape, spacing)
        return {"Dice": overlap, "HD (mm)": distance, "MAD (mm)": distance}
    predicted, expected = cropped(prediction, reference)
    distances = np.concatenate(surface_distances(predicted, expected, spacing)).astype(np.float64)
    return {"Dice": overlap, "HD (mm)": float(distances.max()), "MAD (mm)": float(distances.mean())}


def agreement(predicted: Sequence[float], expected: Sequence[float]) -> Values:
    """Return Pearson's correlation, bias, standard deviation of the differences, and mean absolute error.

    The correlation is NaN for two patients, for whom it would be 1 or -1.
    """
    predictions, references = np.array(predicted), np.array(expected)
    difference = predictions - references
    varies = len(predictions) > 2 and predictions.std() > 0 and references.std() > 0
    return {
        "correlation": float(np.corrcoef(predictions, references)[0, 1]) if varies else math.nan,
        "bias": float(difference.mean()),
        "SD": float(difference.std(ddof=1)) if len(predictions) > 1 else math.nan,
        "MAE": float(np.abs(difference).mean()),
    }


def _agree(patients: Mapping[str, Rows]) -> Rows:
    return {
        name: agreement(*([rows[name][side] for rows in patients.values()] for side in ("prediction", "reference")))
        for name in QUANTITIES
    }


def _patients(frames: Iterable[Frame]) -> tuple[dict[str, Rows], dict[str, str]]:
    """Return the ejection fraction and volumes of each patient, and why patients are left out."""
    by_patient: dict[str, dict[tuple[str, str], Frame]] = {}
    for frame in frames:
        by_patient.setdefault(frame.patient, {})[frame.view, frame.phase] = frame
    patients: dict[str, Rows] = {}
    left_out: dict[str, str] = {}
    for patient, of_patient in sorted(by_patient.items()):
        missing = [f"{view} {phase}" for view, phase in product(VIEWS, PHASES) if (view, phase) not in of_patient]
        predicted = _ejection({at: frame.predicted for at, frame in of_patient.items()})
        expected = _ejection({at: frame.expected for at, frame in of_patient.items()})
        if missing:
            left_out[patient] = f"no {listed(missing)}"
        elif predicted is None or expected is None:
            left_out[patient] = "no left ventricle with a base in a segmentation"
        else:
            patients[patient] = {
                name: {"prediction": predicted[name], "reference": expected[name]} for name in QUANTITIES
            }
    return patients, left_out


def _ejection(views: Mapping[tuple[str, str], View | None]) -> Values | None:
    """Return the ejection fraction and volumes of one patient; None if a view or phase is missing."""
    found = {at: ventricle for at, ventricle in views.items() if ventricle is not None}
    if len(found) < len(VIEWS) * len(PHASES):
        return None
    lengths = [ventricle.length for ventricle in found.values()]
    diastole, systole = (volume(*(found[view, phase] for view in VIEWS), lengths=lengths) for phase in PHASES)
    return dict(zip(QUANTITIES, (100 * (diastole - systole) / diastole, diastole, systole), strict=True))
