"""Reference values of the training data, and limits on the distance from them, derived from held-out cases."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from autocrossdim.inference.likeness import feature_numbers, image_numbers
from autocrossdim.inference.model import Model
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.likeness import FEATURES, LEAST_GROUPS, Floats, HeldOutCases, Likeness, Measure, familiarity
from autocrossdim.selection.folds import CrossValidation
from autocrossdim.selection.held_out import Names, evidence_file
from autocrossdim.selection.stages import preprocessed
from autocrossdim.system.console import track
from autocrossdim.system.device import choose_device
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_record, write_json

LEVEL = 0.995  # of the one-sided prediction interval of each measure
LEAST_LIMIT = 1.0  # deviations; where all cases are alike, the lower bounds of the deviations are what is tolerated
SOFTENING = 0.5  # standard deviations added before the logarithm, so that distances near 0 do not widen the interval
NOT_COMPARED = (
    f"New images are not compared with the training data: fewer than {LEAST_GROUPS} held-out cases or patients."
)
IMAGE_CASES = 500  # most held-out cases that images are compared with; best.json keeps 21 numbers or more of each
REFERENCE_CASES = 64  # most training cases per fold that features are compared with
REFERENCE_NUMBERS = 2**13  # most numbers of features kept per network: at most 150 kB each in best.json, of 4 MB in all
FLOORS = {"intensity": 0.1, "texture": 0.2, "size": 0.15, "spacing": 0.3, FEATURES: 0.02}
"""Lower bounds of the standard deviations: fractions of the normalised intensity, and logarithms. A data set in which
all cases have one spacing does not make a slightly different one unusual; augmentation scales by 0.7 to 1.4
or more."""
PRIOR = 4  # cases that the mean variance of all numbers counts as, in the variance of each


def find_likeness(
    work: CrossValidation, names: Names, digests: Mapping[str, str]
) -> tuple[Likeness, HeldOutCases] | None:
    """Return what the training data are like for a candidate, and how like them each held-out case is.

    Images are compared with all other cases. Features are compared with those of the training cases of the same
    network, so that the distances of held-out cases are those of new cases.

    Args:
        work: Cross-validation of the candidate.
        names: Configurations that are averaged.
        digests: SHA-256 of each checkpoint, by `CONFIGURATION/fold_K`.

    Returns:
        Both results; None with too few held-out cases.

    Raises:
        UserError: A checkpoint or a preprocessed case is damaged.
    """
    held_out = _shuffled([case for _, case in work.cases()])[:IMAGE_CASES]
    groups = [work.dataset.groups.get(case, case) for case in held_out]
    if len(set(groups)) < LEAST_GROUPS:
        return None
    stores = {name: preprocessed(work, name) for name in names}
    image = {case: _image_numbers(stores[names[0]], case) for case in held_out}
    distances, measures = {}, {}
    for name in image[held_out[0]]:
        numbers = [image[case][name] for case in held_out]
        distances[name] = left_out(numbers, groups, FLOORS[name])
        measures[name] = reference(numbers, FLOORS[name])
    features, by_case = _features(work, stores, digests)
    if features:
        distances[FEATURES] = [by_case[case] for case in held_out]
    limits = {name: limit(values, groups) for name, values in distances.items()}
    scores = {
        case: familiarity({name: values[index] for name, values in distances.items()}, limits)
        for index, case in enumerate(held_out)
    }
    likeness = Likeness(
        configuration=names[0],
        image=measures,
        features=features,
        limits=limits,
        n_cases=len(held_out),
        n_unlike=sum(score.is_unlike for score in scores.values()),
    )
    return likeness, HeldOutCases(cases=scores)


def _image_numbers(store: Store, case: str) -> dict[str, Floats]:
    return image_numbers(store.open(case).image[:], store.record(case).placement)


def _features(
    work: CrossValidation, stores: Mapping[str, Store], digests: Mapping[str, str]
) -> tuple[dict[str, Measure], dict[str, float]]:
    """Return the reference features of each network, and the distance of each held-out case to those of its fold."""
    measures: dict[str, Measure] = {}
    distances: dict[str, list[float]] = {case: [] for _, case in work.cases()}
    for name, store in stores.items():
        for fold, split in enumerate(track(work.splits, f"Computing reference features for {name}", len(work.splits))):
            key, training = f"{name}/fold_{fold}", _shuffled(split.train)[:REFERENCE_CASES]
            numbers = _features_of_fold(work, store, key, digests[key], [*training, *split.val])
            if not numbers:
                continue
            count = max(1, REFERENCE_NUMBERS // len(numbers[training[0]]))
            measures[key] = reference([numbers[case] for case in training[:count]], FLOORS[FEATURES])
            for case in split.val:
                distances[case].append(measures[key].distance(numbers[case]))
    return measures, {case: float(np.mean(values)) for case, values in distances.items() if values}


class FoldFeatures(BaseModel):
    """Features of the cases of a fold, kept so that `find_best` need not compute them again.

    Attributes:
        checkpoint: SHA-256 of the checkpoint they were computed with.
        numbers: Numbers of each case; empty if the network has no encoder.
    """

    checkpoint: str
    numbers: dict[str, tuple[float, ...]]


def _features_of_fold(
    work: CrossValidation, store: Store, key: str, checkpoint: str, cases: Sequence[str]
) -> dict[str, Floats]:
    """Return the features of cases by the network `key`; those of an earlier call with the same checkpoint are reused.

    An image that was corrected since is not read again: the network was trained on its earlier version.
    """
    name, _, fold = key.partition("/fold_")
    folder = work.workspace.fold(name, fold)
    file = evidence_file(folder, "features").with_suffix(".json")
    known = _known_features(file)
    if known is None or known.checkpoint != checkpoint or (known.numbers and known.numbers.keys() != set(cases)):
        model = Model.load([folder.latest], choose_device(work.device))
        found = {case: feature_numbers(model, store.open(case).whole_input()) for case in cases}
        numbers = {case: tuple(values[key].tolist()) for case, values in found.items() if key in values}
        known = FoldFeatures(checkpoint=checkpoint, numbers=numbers)
        write_json(file, known.model_dump())
    return {case: np.array(values) for case, values in known.numbers.items()}


def _known_features(file: Path) -> FoldFeatures | None:
    try:
        return read_record(FoldFeatures, file, remedy="")
    except UserError:  # missing or damaged: they are computed again
        return None


def _shuffled(cases: Sequence[str]) -> list[str]:
    """Return cases in random order, so that the order of their numbers tells nothing about their names."""
    return [sorted(cases)[index] for index in np.random.default_rng(0).permutation(len(cases))]


def reference(cases: Sequence[Floats], floor: float) -> Measure:
    """Return reference cases of a measure.

    The variance of each number is shrunk towards the mean variance, since there may be fewer cases than numbers.

    Args:
        cases: Numbers of each case, shape (n, numbers).
        floor: Lower bound of the standard deviations.
    """
    values = np.asarray(cases, np.float64)
    freedom = max(len(values) - 1, 0)
    variance = values.var(axis=0, ddof=1) if freedom else np.zeros(values.shape[1])
    deviation = np.sqrt(np.maximum((freedom * variance + PRIOR * variance.mean()) / (freedom + PRIOR), floor**2))
    centre = values.mean(axis=0)
    standardised = np.round((values - centre) / deviation, 3)
    return Measure(
        centre=tuple(centre.tolist()),
        deviation=tuple(deviation.tolist()),
        cases=tuple(tuple(case) for case in standardised.tolist()),
    )


def left_out(cases: Sequence[Floats], groups: Sequence[str], floor: float) -> list[float]:
    """Return the distance of each case to the cases of all other groups (patients)."""
    distances = []
    for numbers, group in zip(cases, groups, strict=True):
        others = [case for case, other in zip(cases, groups, strict=True) if other != group]
        distances.append(reference(others, floor).distance(numbers))
    return distances


def limit(distances: Sequence[float], groups: Sequence[str]) -> float:
    """Return the distance that a further case of the same kind exceeds with a probability of 1 - LEVEL.

    With few cases, an empirical 99 % quantile is the largest distance, which one case in n + 1 exceeds. Therefore this
    is the upper end of the prediction interval of the logarithm (Student's t), which accounts for n, and at least the
    99 % quantile.

    Args:
        distances: Distance of each held-out case.
        groups: Group (patient) of each case; cases of a patient count as one.
    """
    from scipy.special import stdtrit

    n = len(set(groups))
    logarithm = np.log(np.asarray(distances) + SOFTENING)
    width = stdtrit(n - 1, LEVEL) * logarithm.std(ddof=1) * np.sqrt(1 + 1 / n)
    predicted = float(np.exp(logarithm.mean() + width)) - SOFTENING
    return max(predicted, float(np.quantile(distances, 0.99)), LEAST_LIMIT)
