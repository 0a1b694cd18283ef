"""Query methods rank the unlabelled scans for each place of the list."""

from collections import Counter
from itertools import islice

import numpy as np

from autocrossdim.records.suggestions import MethodName, ScanMeasures
from autocrossdim.selection.query import METHODS

MANY = 10_000  # annotated patients with which hardly any noise is left


def scan(case: str, entropy: float, **label_entropy: float) -> ScanMeasures:
    return ScanMeasures(
        case=case,
        model="",
        files=(),
        entropy=entropy,
        label_entropy=label_entropy,
        expected_dice=0.8,
        unlike_training=None,
        slice_axis=0,
        extent=(0, 9),
        features=(0.0,),
    )


SCANS = [
    scan("liver only", 0.5, liver=0.1),
    scan("both", 0.3, liver=0.2, tumour=0.6),
    scan("uncertain tumour", 0.2, liver=0.05, tumour=0.9),
    scan("uncertain liver", 0.1, liver=0.4),
]


def first(method: MethodName, places: int, *, annotated: int, seed: int = 0) -> list[str]:
    """Return the best scan for each place."""
    rankings = METHODS[method](SCANS, annotated, np.random.default_rng(seed))
    return [ranking[0].case for ranking in islice(rankings, places)]


def test_two_of_three_places_go_to_one_label_in_turn() -> None:
    tumour, liver, overall = "uncertain tumour", "uncertain liver", "liver only"
    # The tumour has the higher entropy, so it is first.
    expected = [tumour, liver, overall, tumour, liver, overall]
    assert first("stratified", 6, annotated=MANY) == expected


def test_every_ranking_holds_every_scan_once() -> None:
    for method in METHODS.values():
        for ranking in islice(method(SCANS, 4, np.random.default_rng(0)), 5):
            assert sorted(each.case for each in ranking) == sorted(each.case for each in SCANS)


def test_the_reason_names_the_label_and_the_rank() -> None:
    ranking = next(METHODS["stratified"](SCANS, MANY, np.random.default_rng(0)))
    assert ranking[0].why == "entropy in 'tumour' 0.9 nats per voxel, rank 1 of 2 scans"
    assert ranking[2].why == "entropy overall 0.5 nats per voxel, rank 1 of 4 scans"  # it has no tumour


def test_noise_decreases_with_the_number_of_annotated_patients() -> None:
    few = Counter(first("stratified", 3, annotated=4, seed=seed)[2] for seed in range(100))
    more = Counter(first("stratified", 3, annotated=12, seed=seed)[2] for seed in range(100))
    assert len(few) == 4
    assert 30 < few["liver only"] < more["liver only"]


def test_a_seed_gives_the_same_list_again() -> None:
    for name in METHODS:
        assert first(name, 9, annotated=4, seed=3) == first(name, 9, annotated=4, seed=3)
        assert len({tuple(first(name, 9, annotated=4, seed=seed)) for seed in range(5)}) > 1


def test_no_label_was_found_anywhere() -> None:
    rankings = METHODS["stratified"]([scan("a", 0.1), scan("b", 0.2)], MANY, np.random.default_rng(0))
    assert [ranking[0].case for ranking in islice(rankings, 3)] == ["b", "b", "b"]
