"""Choosing the unlabelled scans, and slices, to annotate next."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations, islice

import numpy as np

from autocrossdim.data.dataset import Case, Dataset
from autocrossdim.inference.inputs import existing_files
from autocrossdim.inference.predictor import Predictor
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.likeness import beyond_limit
from autocrossdim.records.suggestions import MethodName, ScanMeasures, Suggestion, Suggestions
from autocrossdim.records.workspace import Workspace
from autocrossdim.selection.query import METHODS, RankedScan, Ranking
from autocrossdim.selection.scans import draft, measure_scans
from autocrossdim.system.files import write_csv

NEAR = 0.4
"""Two scans are near-duplicates if their features differ by less than this share of the median difference."""
COLUMNS = ("rank", "case", "group", "slice_axis", "slices", "why", "expected_dice", "unlike_training", "draft")


def annotate_next(
    predictor: Predictor,
    dataset: Dataset,
    workspace: Workspace,
    cases: Sequence[Case],
    *,
    number: int,
    method: MethodName,
    seed: int,
) -> Suggestions:
    """Choose scans, and write annotate_next.json and annotate_next.csv.

    Args:
        predictor: Trained models of the workspace.
        dataset: The raw dataset.
        workspace: Its workspace.
        cases: Unlabelled scans to choose from.
        number: Number of scans to choose; all if there are fewer.
        method: Query method.
        seed: Seed of the random numbers.

    Raises:
        UserError: An image cannot be read, or the model cannot be applied to it.
    """
    scans = measure_scans(predictor, sorted(cases, key=lambda case: case.name), workspace)
    groups = {name: dataset.groups.get(name, name) for name in [scan.case for scan in scans]}
    annotated = {dataset.groups.get(case.name, case.name) for case in dataset.training_cases()}
    rankings = METHODS[method](scans, len(annotated), np.random.default_rng(seed))
    chosen = choose(
        list(islice(rankings, min(number, len(scans)))), groups, annotated=annotated, alike=near_duplicates(scans)
    )
    count = _slices_per_case(workspace) if dataset.labels.unannotated_slices is not None else 0
    measures = {scan.case: scan for scan in scans}
    files = {case.name: case for case in cases}
    result = Suggestions(
        dataset=dataset.name,
        method=method,
        seed=seed,
        n_annotated=len(dataset.training_cases()),
        n_scans=len(scans),
        calibrated=predictor.case_score.calibrated,
        suggestions=tuple(
            Suggestion(
                case=each.case,
                group=dataset.groups.get(each.case),
                why=_with_caution(each.why, measures[each.case]),
                slices=evenly(measures[each.case].extent, count),
                slice_axis=("z", "y", "x")[measures[each.case].slice_axis] if count else None,
                expected_dice=measures[each.case].expected_dice,
                unlike_training=measures[each.case].unlike_training,
                images=tuple(image.absolute() for image in existing_files(files[each.case]) if image is not None),
                draft=draft(files[each.case], workspace, dataset.file_ending).absolute(),
            )
            for each in chosen
        ),
    )
    write_csv(workspace.suggestions.with_suffix(".csv"), COLUMNS, _rows(result))
    result.write(workspace.suggestions)
    return result


def choose(
    rankings: Sequence[Ranking],
    groups: Mapping[str, str],
    *,
    annotated: Collection[str],
    alike: Collection[frozenset[str]],
) -> list[RankedScan]:
    """Return one scan per ranking: the best one that is not like another one that was chosen.

    If none is left, a second scan of a patient with annotated scans is taken, then one of a patient who is in the list
    already, then a near-duplicate; `why` says so.

    Args:
        rankings: Scans in order of preference, for each place of the list.
        groups: Group (patient) of each scan.
        annotated: Groups with annotated cases.
        alike: Pairs of near-duplicates.
    """
    chosen: list[RankedScan] = []

    def drawbacks(scan: RankedScan) -> tuple[bool, bool, bool]:
        twin = any(frozenset((scan.case, other.case)) in alike for other in chosen)
        group = groups[scan.case]
        return twin, any(groups[other.case] == group for other in chosen), group in annotated

    for ranking in rankings:
        names = {each.case for each in chosen}
        best = min((each for each in ranking if each.case not in names), key=drawbacks)  # the first of the best ones
        twin, listed, known = drawbacks(best)
        notes = [
            *(["nearly the same as a scan above"] if twin else []),
            *(["another scan of this patient is above"] if listed else []),
            *(["another scan of this patient is annotated"] if known else []),
        ]
        chosen.append(RankedScan(best.case, "; ".join([best.why, *notes])))
    return chosen


def near_duplicates(scans: Sequence[ScanMeasures]) -> set[frozenset[str]]:
    """Return the pairs of scans whose features, standardised over the scans, hardly differ.

    Distances are relative to those of the typical scan to the others, so that a few scans unlike all others, such as
    damaged ones, do not make the rest look alike.
    """
    from scipy.spatial.distance import pdist, squareform  # slow to import

    if len(scans) < 2:
        return set()
    features = np.array([scan.features for scan in scans], np.float64)
    features /= np.maximum(features.std(axis=0), 1e-12)
    distances = pdist(features)  # of every pair, in the order of `combinations`; the number of features cancels out
    others = squareform(distances)[~np.eye(len(scans), dtype=bool)].reshape(len(scans), -1)
    near = distances < NEAR * np.median(np.median(others, axis=1))
    pairs = combinations([scan.case for scan in scans], 2)
    return {frozenset(pair) for pair, is_near in zip(pairs, near, strict=True) if is_near}


def evenly(extent: tuple[int, int], count: int) -> tuple[int, ...]:
    """Return `count` slices at fixed intervals from the first to the last slice of a structure.

    Slices chosen by active learning were no better than slices at fixed intervals (Zhang et al., MIDL 2025).
    """
    first, last = extent
    count = min(count, last - first + 1)
    return tuple(first + int((index + 0.5) * (last - first + 1) / count) for index in range(count))


def _with_caution(why: str, scan: ScanMeasures) -> str:
    if scan.expected_dice is None:
        why += "; nothing was segmented in it"
    if scan.unlike_training is not None and scan.unlike_training > 1:
        why += f"; unlike the training data ({beyond_limit(scan.unlike_training)}), check the image first"
    return why


def _slices_per_case(workspace: Workspace) -> int:
    """Return the median number of annotated slices of the training cases."""
    cases = Fingerprint.read(workspace.fingerprint).cases
    return round(float(np.median([(case.annotated_slices or (case.shape[0],))[0] for case in cases])))


def _rows(result: Suggestions) -> Iterator[tuple[object, ...]]:
    for rank, each in enumerate(result.suggestions, start=1):
        values = (each.expected_dice, each.unlike_training)
        expected, unlike = ("" if value is None else f"{value:.4f}" for value in values)
        slices = " ".join(map(str, each.slices))
        yield rank, each.case, each.group or "", each.slice_axis or "", slices, each.why, expected, unlike, each.draft
