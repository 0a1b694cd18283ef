from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.images import read_image
from autocrossdim.data.splits import Split
from autocrossdim.inference.likeness import feature_numbers, image_numbers
from autocrossdim.inference.model import Model
from autocrossdim.networks.build import build_network
from autocrossdim.records.best import checkpoint_digests
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.run_state import RunState
from autocrossdim.records.workspace import Workspace
from autocrossdim.selection.cross_validation import CrossValidation
from autocrossdim.selection.likeness import LEAST_LIMIT, find_likeness, left_out, limit, reference
from autocrossdim.system.device import CPU


@pytest.mark.parametrize("n", [8, 30])
@pytest.mark.parametrize("numbers", [1, 3, 48])
def test_few_further_cases_of_the_same_kind_are_unlike_and_far_ones_are(n: int, numbers: int) -> None:
    random = np.random.default_rng(n + numbers)
    false_alarms, found = [], []
    for _ in range(100):
        mixing = np.eye(numbers) + 0.7 * random.normal(size=(numbers, numbers)) / np.sqrt(numbers)
        cases, others = (random.normal(size=(count, numbers)) @ mixing for count in (n, 20))
        names = [str(index) for index in range(n)]
        measure, largest = reference(cases, 0.1), limit(left_out(cases, names, 0.1), names)
        false_alarms += [measure.distance(case) > largest for case in others]
        found += [measure.distance(case + 20 * np.linalg.norm(mixing, axis=0)) > largest for case in others]
    assert np.mean(false_alarms) < 0.05 / 2  # several measures share 5 %
    assert np.mean(found) > 0.95


def test_deviations_are_shrunk_and_bounded() -> None:
    random = np.random.default_rng(0)
    cases = random.normal(5, [1e-9, 3.0], size=(6, 2))
    deviation = np.array(reference(cases, 0.5).deviation)
    variance = cases.var(axis=0, ddof=1)
    np.testing.assert_allclose(deviation**2, np.maximum((5 * variance + 4 * variance.mean()) / 9, 0.25))
    assert reference(np.full((6, 2), 7.0), 0.5).deviation == (0.5, 0.5)
    assert reference(np.full((1, 2), 7.0), 0.5).distance(np.array([8.0, 8.0])) == pytest.approx(2)


def test_cases_are_compared_with_other_patients_only() -> None:
    cases = [np.array([0.0]), np.array([0.0]), np.array([9.0]), np.array([9.0])]
    apart = left_out(cases, ["a", "b", "c", "d"], 1.0)
    together = left_out(cases, ["a", "a", "b", "b"], 1.0)
    assert min(together) > max(apart)


def test_a_limit_is_above_all_of_a_few_cases_and_grows_with_their_spread_and_scarcity() -> None:
    names = [str(index) for index in range(40)]
    assert limit([0.0] * 8, names[:8]) == LEAST_LIMIT  # all cases have one spacing
    wide, narrow = [1.0, 2.0, 3.0, 4.0] * 2, [2.0, 2.2, 2.4, 2.6] * 2
    assert 2.6 < limit(narrow, names[:8]) < limit(wide, names[:8])
    assert limit(wide, names[:8]) > 4
    assert limit(wide * 5, names) < limit(wide, names[:8]) < limit(wide, ["a", "b", "c", "d"] * 2)
    assert limit([1.0] * 7 + [30.0], names[:8]) > 30


@pytest.fixture
def work(tmp_path: Path, make_dataset: Callable[..., Path], make_plan: Callable[..., Any]) -> CrossValidation:
    """Folds of real networks with random weights, on six cases of noise with a bright block."""
    raw = make_dataset(cases="abcdef", shape=(16, 20, 18), spacing=(1.0, 1.0, 1.0), direction=np.eye(3).ravel())
    plan = make_plan(patch_size=(16, 16, 16), normalization=({"scheme": "zscore"},))
    space = Workspace(tmp_path / "work" / raw.name)
    splits = [Split(tuple(sorted(set("abcdef") - set(val))), tuple(val)) for val in ("ab", "cd", "ef")]
    torch.manual_seed(0)
    for fold, split in enumerate(splits):
        Checkpoint(
            plan=plan,
            configuration="dx",
            fold=fold,
            split={"train": list(split.train), "val": list(split.val)},
            network=build_network(plan.network_plan(plan.configuration()), None).state_dict(),
            settings={},
            provenance={},
            run=RunState(epoch=1, step=1, seconds=1.0, complete=True),
        ).write(space.fold("dx", fold).latest)
    return CrossValidation(load_dataset(raw), space, plan, splits, processes=1, device="cpu")


def test_held_out_cases_are_like_the_training_data_and_altered_ones_are_not(work: CrossValidation) -> None:
    digests = checkpoint_digests(work.workspace, ["dx"], range(3))
    result = find_likeness(work, ("dx",), digests)
    assert result is not None
    assert find_likeness(work, ("dx",), digests) == result  # from the features that were kept
    likeness, held_out = result
    assert set(held_out.cases) == set("abcdef")
    assert max(case.score for case in held_out.cases.values()) <= 1
    assert set(likeness.features) == {"dx/fold_0", "dx/fold_1", "dx/fold_2"}
    assert {len(measure.cases) for measure in likeness.features.values()} == {4}  # the training cases of each fold
    assert {len(measure.cases) for measure in likeness.image.values()} == {6}
    assert (likeness.n_cases, likeness.n_unlike) == (6, 0)

    model = Model.load([work.workspace.fold("dx", fold).latest for fold in range(3)], CPU)
    image = read_image([work.dataset.training_cases()[0].images[0]])
    array = image.array.astype(np.float32)
    block = array.copy()
    block[:, 2:12, 2:12, 2:12] += 200
    altered = {"as it is": array, "inverted": -array, "larger": np.tile(array, (1, 2, 2, 2)), "brighter": block}
    found = {}
    for name, changed in altered.items():
        case = model.prepare(changed, image.geometry.spacing)
        features = feature_numbers(model, case.image)
        found[name] = likeness.compare(image_numbers(case.image, case.placement), features)
    assert not found["as it is"].is_unlike
    assert found["inverted"].is_unlike
    assert found["brighter"].is_unlike
    assert (found["larger"].is_unlike, found["larger"].differs_in) == (True, "size")


def test_too_few_patients_give_no_reference(work: CrossValidation) -> None:
    work.dataset.groups.update({"a": "one", "b": "one", "c": "two", "d": "two"})
    assert find_likeness(work, ("dx",), {}) is None
