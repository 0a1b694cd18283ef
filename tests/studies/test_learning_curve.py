import re

import numpy as np
import pytest

from autocrossdim.studies.learning_curve import doubling_sizes, gain_of_twice, learning_curve, power_law

SIZES = (2, 4, 8, 16)


def curve(make_runs, a=0.4, b=0.5, noise=0.01, seeds=4, sizes=SIZES):
    """Runs whose error follows the power law, with an offset per case that all sizes share."""
    random = np.random.default_rng(0)
    of_case = random.normal(0, 0.02, 10)
    runs = []
    for size in sizes:
        dice = 1 - a * size**-b + of_case + random.normal(0, noise, (seeds, 10))
        runs += make_runs("DX-Net", dice.tolist(), size=size)
    return runs


def test_the_law_is_recovered_exactly():
    a, b = power_law(SIZES, 1 - 0.4 * np.array(SIZES, float) ** -0.5)
    assert (a, b) == (pytest.approx(0.4), pytest.approx(0.5))


def test_a_perfect_dice_has_no_infinite_logarithm():
    assert np.isfinite(power_law(SIZES, np.ones(4))).all()


def test_what_twice_as_many_cases_bring_lies_in_the_interval(make_runs):
    runs = curve(make_runs)
    last = [run for run in runs if run.size == 16]
    for run in last:
        for name, case in run.cases.items():
            run.cases[name] = case.model_copy(update={"dice": case.dice - 0.01})
    found = learning_curve(["DX-Net"], runs)
    true_gain = 0.4 * (16**-0.5 - 32**-0.5)
    assert found.numbers["gain low"] < true_gain < found.numbers["gain high"]
    assert found.numbers["gain low"] > 0
    assert found.numbers["twice"] == pytest.approx(1 - 0.4 * 32**-0.5, abs=0.01)
    gain, now, twice = map(float, re.search(r"by (\S+) Dice .* from (\S+) to (\S+)\.$", found.conclusion).groups())
    assert now + gain == pytest.approx(twice, abs=0.0015)  # although the measured mean lies beside the curve
    assert now != pytest.approx(np.mean([case.dice for run in last for case in run.cases.values()]), abs=0.002)
    assert [row[0] for row in found.table.rows] == ["2", "4", "8", "16"]


def test_a_curve_that_has_flattened_is_pointed_out(make_runs):
    runs = [run for run in curve(make_runs) if run.size != 16]
    runs += [run.model_copy(update={"size": 16}) for run in runs if run.size == 8]  # no gain from the last doubling
    note = next(note for note in learning_curve(["DX-Net"], runs).notes if note.startswith("From 8 to 16"))
    measured, fitted = map(float, re.search(r"changed by (\S+); on the curve, by (\S+)\. ", note).groups())
    assert measured == 0
    assert fitted > 0.02


def test_a_flat_curve_shows_no_difference(make_runs, tmp_path):
    found = learning_curve(["DX-Net"], curve(make_runs, b=0.0))
    assert found.conclusion.startswith("No difference shown between 16 training cases and twice as many")
    found.draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size


def test_seeds_that_some_size_lacks_are_left_out(make_runs):
    runs = [run for run in curve(make_runs) if (run.size, run.seed) != (16, 3)]
    assert learning_curve(["DX-Net"], runs).numbers["gain"] > 0


def test_two_sizes_are_too_few(make_runs, tmp_path):
    found = learning_curve(["DX-Net"], curve(make_runs, sizes=(2, 4)))
    assert "needs at least 3 numbers of training cases" in found.conclusion
    found.draw(tmp_path / "figure.png")


def test_sizes_without_a_common_seed_are_named(make_runs, tmp_path):
    runs = [run for run in curve(make_runs, sizes=(2, 4, 8)) if run.seed == (0 if run.size == 2 else 1)]
    found = learning_curve(["DX-Net"], runs)
    assert "needs a seed with runs of every number of training cases" in found.conclusion
    found.draw(tmp_path / "figure.png")


def test_one_patient_gives_no_interval(make_runs):
    runs = [run for size in SIZES for run in make_runs("DX-Net", [[1 - 0.4 / size]] * 2, size=size)]
    found = learning_curve(["DX-Net"], runs)
    assert found.numbers["gain low"] is None
    assert "can be drawn from fewer than two held-out patients (on the fitted curve: +" in found.conclusion


def test_nothing_is_concluded_from_one_seed(make_runs):
    found = learning_curve(["DX-Net"], curve(make_runs, seeds=1))
    assert found.conclusion.startswith(
        "No conclusion about twice as many training cases as 16 can be drawn from a single"
    )
    assert "would change" not in found.conclusion


def test_the_interval_is_of_other_seeds_and_patients():
    random = np.random.default_rng(1)
    values = [1 - 0.4 * size**-0.5 + random.normal(0, 0.02, (3, 8)) for size in SIZES]
    few, many = (gain_of_twice(SIZES, [each[:s] for each in values], [str(k) for k in range(8)]) for s in (2, 3))
    assert few.high - few.low > 0
    assert many.high - many.low > 0


def test_sizes_double_up_to_all_cases():
    assert doubling_sizes(24) == [2, 4, 8, 16, 24]
    assert doubling_sizes(16) == [2, 4, 8, 16]
    assert doubling_sizes(3) == [2, 3]
    assert doubling_sizes(1) == [1]
