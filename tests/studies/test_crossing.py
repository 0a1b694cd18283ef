import numpy as np
import pytest

from autocrossdim.studies.crossing import compare_ratios, find_crossing

pytestmark = pytest.mark.usefixtures("few_draws")
RATIOS = (1.0, 2.0, 3.0, 4.0, 6.0)


@pytest.fixture
def few_draws(monkeypatch):
    monkeypatch.setattr("autocrossdim.evaluation.interval.DRAWS_OF_COMPARISONS", 400)


def crossing_of(found):
    pairs = [(0.7 + each, np.full(each.shape, 0.7)) for each in found]
    return find_crossing(RATIOS, pairs, [str(case) for case in range(10)])


def differences(crossing, slope=-0.05, noise=0.01, seeds=3, cases=10):
    random = np.random.default_rng(0)
    return [slope * np.log(ratio / crossing) + random.normal(0, noise, (seeds, cases)) for ratio in RATIOS]


def studied(make_runs, found):
    runs = []
    for slicing, each in zip((1, 2, 3, 4, 6), found, strict=True):
        flat = np.full(each.shape, 0.7)
        fields = {"slicing": slicing, "anisotropy": float(slicing)}
        runs += make_runs("Omnia-Net", flat.tolist(), **fields) + make_runs("DX-Net", (flat + each).tolist(), **fields)
    return compare_ratios(["Omnia-Net", "DX-Net"], runs)


def test_a_known_crossing_is_found_with_an_interval_around_it():
    found = crossing_of(differences(2.5))
    assert found.value == pytest.approx(2.5, rel=0.1)
    assert found.low < 2.5 < found.high
    assert found.low > 1
    assert found.high < 6


def test_noise_opens_the_interval():
    found = crossing_of(differences(2.5, noise=0.5))
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_without_noise_the_interval_is_the_crossing():
    found = crossing_of(differences(2.5, noise=0.0))
    assert found.low == pytest.approx(2.5, rel=0.05)
    assert found.high == pytest.approx(2.5, rel=0.05)


def test_false_alarms_in_cases_without_labels_count():
    false_alarms = [(0.7 + each, np.full(each.shape, 0.7)) for each in differences(2.5)]
    for deep, flat in false_alarms:
        deep[:, :2], flat[:, :2] = np.nan, 0.0  # nothing to segment: the 3D network does not, the 2D network does
    assert find_crossing(RATIOS, false_alarms, [str(case) for case in range(10)]).signs == (1,)


@pytest.mark.slow
@pytest.mark.parametrize("slope", [-0.5, -0.2])
def test_the_interval_is_not_rounded_to_the_ratios_at_which_the_line_is_examined(monkeypatch, slope):
    exact = differences(2.53, slope=slope, noise=0.005)
    coarse = crossing_of(exact)
    monkeypatch.setattr("autocrossdim.studies.crossing.GRID", 1201)
    fine = crossing_of(exact)
    assert coarse.low < coarse.value < coarse.high
    assert coarse.high - coarse.low == pytest.approx(fine.high - fine.low, rel=0.05)
    assert (coarse.low, coarse.value, coarse.high) == pytest.approx((fine.low, fine.value, fine.high), abs=1e-3)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (differences(3.2), "DX-Net is better than Omnia-Net up to an anisotropy of 3."),
        (differences(3.0), "which agrees with the planner's threshold of 3.0."),
        (differences(1.5), "which differs from the planner's threshold of 3.0."),
        (differences(50), "DX-Net is better than Omnia-Net everywhere between an anisotropy of 1.0 and 6.0."),
        (differences(0.1), "Omnia-Net is better than DX-Net everywhere"),
        (differences(2.5, slope=0.05), "Omnia-Net is better at small ratios and DX-Net at large ones"),
        (differences(1.0, slope=-0.03), "Omnia-Net is better than DX-Net at some ratios"),
        (differences(2.5, noise=0.5), "No difference shown"),
    ],
)
def test_the_conclusion_says_what_is_shown(make_runs, found, said):
    assert said in studied(make_runs, found).conclusion


@pytest.mark.parametrize(
    ("seeds", "cases", "few"), [(1, 10, "a single seed"), (3, 1, "fewer than two held-out patients")]
)
def test_nothing_is_concluded_from_one_seed_or_one_patient(make_runs, seeds, cases, few):
    found = studied(make_runs, differences(2.5, seeds=seeds, cases=cases))
    assert found.conclusion == f"No conclusion about a crossing of Omnia-Net and DX-Net can be drawn from {few}."
    assert found.numbers == {}


def test_table_and_figure(make_runs, tmp_path):
    found = studied(make_runs, differences(2.5))
    assert [row[:3] for row in found.table.rows][1] == ("2", "2.0", "3")
    assert found.comparisons[0].is_shown
    found.draw(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size


def test_two_ratios_are_too_few_for_a_crossing(make_runs, tmp_path):
    flat = make_runs("Omnia-Net", [[0.5, 0.6]])
    found = compare_ratios(["Omnia-Net", "DX-Net"], [*flat, *make_runs("DX-Net", [[0.6, 0.7]])])
    assert "A crossing needs 3 slice spacings" in found.conclusion
    found.draw(tmp_path / "figure.png")
    alone = compare_ratios(["Omnia-Net", "DX-Net"], flat)
    assert "there are 0" in alone.conclusion


def test_slice_spacings_without_a_common_seed_are_named(make_runs):
    runs = []
    for slicing, seed in ((1, 0), (2, 0), (3, 1)):
        fields = {"slicing": slicing, "anisotropy": float(slicing)}
        for arm in ("Omnia-Net", "DX-Net"):
            runs.append(make_runs(arm, [[0.5, 0.6]] * 2, **fields)[seed])
    found = compare_ratios(["Omnia-Net", "DX-Net"], runs)
    assert found.conclusion == "A crossing needs a seed with runs at every slice spacing; no seed has all of them yet."
