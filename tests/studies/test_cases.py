import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocrossdim.studies.cases import hold_out, training_order
from autocrossdim.system.errors import UserError


@given(st.lists(st.integers(0, 6), min_size=8, max_size=30), st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_groups_are_held_out_completely(patients, seed):
    names = [f"case_{index:02d}" for index in range(len(patients))]
    groups = {name: f"patient {patient}" for name, patient in zip(names, patients, strict=True)}
    if len(set(patients)) < 3:
        return
    try:
        training, test = hold_out(names, groups)
    except UserError:
        return
    assert sorted([*training, *test]) == names
    assert not {groups[name] for name in training} & {groups[name] for name in test}
    assert len(test) >= len(names) / 4
    assert sorted(training_order(training, groups, seed)) == training


def test_a_quarter_is_held_out_unless_a_number_is_given():
    names = [f"case_{index:02d}" for index in range(32)]
    training, test = hold_out(names, {})
    assert (len(training), len(test)) == (24, 8)
    assert len(hold_out(names, {}, 10)[1]) == 10
    assert hold_out(names[::-1], {}) == (training, test)  # the order of the cases does not matter


def test_holding_out_everything_is_refused():
    with pytest.raises(UserError, match="leaves none to train on"):
        hold_out(["a", "b"], {"a": "patient", "b": "patient"})


def test_seeds_draw_other_cases_and_one_of_each_patient_in_turn():
    names = [f"case_{index:02d}" for index in range(12)]
    groups = {name: f"patient {index // 4}" for index, name in enumerate(names)}
    orders = [training_order(names, groups, seed) for seed in (0, 1)]
    assert orders[0] != orders[1]
    for order in orders:
        assert len({groups[name] for name in order[:3]}) == 3
    assert training_order(names, groups, 0) == orders[0]
