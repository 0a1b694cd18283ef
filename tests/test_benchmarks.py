"""Statistics of the benchmarks, and the page that is made from their results."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import paired
    import train_table

    return SimpleNamespace(paired=paired, train_table=train_table)


def test_the_interval_of_few_seeds_and_patients_contains_the_true_difference(modules: SimpleNamespace) -> None:
    random = np.random.default_rng(0)
    hits, trials = 0, 200
    for _ in range(trials):
        of_seeds, of_patients = random.normal(0, 0.3, (3, 1)), np.repeat(random.normal(size=5), 8)
        values = of_seeds + of_patients + random.normal(0, 0.5, (3, 40))
        found = modules.paired.estimated(values, [str(case // 8) for case in range(40)])
        hits += found.low <= 0 <= found.high
    assert hits / trials > 0.9  # 0.5 if the cases of each seed are drawn, as if they were independent


def test_slices_and_volumes_of_sunnybrook_are_grouped_by_patient(modules: SimpleNamespace) -> None:
    cases = ["SC-HF-I-10-IM-0001-0008.png", "SC-HF-I-10-IM-0001-0028.png", "SC-HF-I-1_ED.nii.gz", "SC-HF-I-1_ES.nii.gz"]
    assert [modules.paired.patient(case) for case in cases] == ["SC-HF-I-10"] * 2 + ["SC-HF-I-1"] * 2
    assert modules.paired.patient("hippocampus_007.nii.gz") != modules.paired.patient("hippocampus_015.nii.gz")


def test_seeds_that_leave_out_another_patient_each_are_not_counted_as_a_second_sample(modules: SimpleNamespace) -> None:
    difference = np.array([0.03, 0.05, 0.08, 0.06, 0.1, 0.11])
    by_seed = np.where(np.eye(3, dtype=bool).repeat(2, axis=1), difference, np.nan)
    groups = ["a", "a", "b", "b", "c", "c"]
    assert modules.paired.estimated(by_seed, groups) == modules.paired.estimated(difference[None], groups)


def test_the_page_shows_the_tables_of_the_results(modules: SimpleNamespace) -> None:
    page = (BENCHMARKS / "results" / "train.md").read_text()
    shown = page.split(modules.train_table.MARKS[0])[1].split(modules.train_table.MARKS[1])[0]
    assert shown.strip() == modules.train_table.tables(modules.train_table.read(modules.train_table.RESULTS))
