"""Patients are kept apart, near-duplicates are avoided, and slices lie at fixed intervals."""

import numpy as np
import pytest

from autocrossdim.selection.annotate_next import choose, evenly, near_duplicates
from autocrossdim.selection.query import RankedScan
from tests.selection.test_query import scan

NOBODY: frozenset[frozenset[str]] = frozenset()


def ranking(cases: str) -> list[RankedScan]:
    return [RankedScan(case, f"why {case}") for case in cases]


def test_one_scan_per_patient_until_no_patient_is_left() -> None:
    groups = {"a": "P1", "b": "P1", "c": "P2", "d": "P3"}
    chosen = choose([ranking("abcd")] * 4, groups, annotated={"P3"}, alike=NOBODY)
    assert [each.case for each in chosen] == ["a", "c", "d", "b"]
    assert chosen[0].why == "why a"
    assert chosen[2].why == "why d; another scan of this patient is annotated"
    assert chosen[3].why == "why b; another scan of this patient is above"


def test_near_duplicates_come_last() -> None:
    chosen = choose([ranking("abc")] * 3, {case: case for case in "abc"}, annotated=(), alike={frozenset("ab")})
    assert [each.case for each in chosen] == ["a", "c", "b"]
    assert chosen[2].why == "why b; nearly the same as a scan above"


def test_each_place_has_its_own_ranking() -> None:
    chosen = choose([ranking("abc"), ranking("cba")], {case: case for case in "abc"}, annotated=(), alike=NOBODY)
    assert [each.case for each in chosen] == ["a", "c"]


def test_a_copy_with_little_noise_is_a_near_duplicate() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(8, 40))
    features[7] = features[2] + random.normal(scale=0.05, size=40)
    scans = [scan(str(index), 0.1).model_copy(update={"features": tuple(row)}) for index, row in enumerate(features)]
    assert near_duplicates(scans) == {frozenset("27")}
    assert near_duplicates(scans[:1]) == set()


def test_an_outlier_does_not_make_the_other_scans_near_duplicates() -> None:
    random = np.random.default_rng(0)
    features = random.normal(size=(4, 40))
    features[3] = features[0] + random.normal(scale=0.05, size=40)
    features[2] += 20  # a damaged scan
    scans = [scan(str(index), 0.1).model_copy(update={"features": tuple(row)}) for index, row in enumerate(features)]
    assert near_duplicates(scans) == {frozenset("03")}


@pytest.mark.parametrize(
    ("extent", "count", "expected"),
    [((10, 19), 2, (12, 17)), ((0, 8), 3, (1, 4, 7)), ((4, 5), 6, (4, 5)), ((3, 3), 1, (3,)), ((0, 9), 0, ())],
)
def test_slices_lie_at_fixed_intervals(extent: tuple[int, int], count: int, expected: tuple[int, ...]) -> None:
    assert evenly(extent, count) == expected
