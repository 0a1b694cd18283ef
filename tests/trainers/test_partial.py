"""Training on cases of which only some slices, or only some labels, were annotated."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.images import read_label, write_label
from autocrossdim.preprocessing.dataset import preprocess_dataset
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.labels import Labels
from trainers.loader import PatchLoader
from trainers.loss import IGNORED, DiceCrossEntropy
from trainers.partial import class_sets, leave_open
from trainers.pseudo_dice import PseudoDice
from trainers.settings import Settings

CLASSES = Labels(foreground={"first": (1,), "second": (2,), "third": (7,)})
REGIONS = Labels.from_dataset_json({"background": 0, "whole": [1, 2], "core": [2]}, [1, 2])
BOTH = {"background": 0, "first": 1, "second": 2}


def test_each_combination_of_labels_is_one_set_and_complete_cases_are_none() -> None:
    annotated = [None, ("first",), ("second", "third"), ("first",), None]
    assert class_sets(CLASSES, annotated) == ((0, 1), (0, 2, 3))
    assert class_sets(CLASSES, [None, None]) == ()
    assert class_sets(REGIONS, [("whole",)]) == ()


def test_background_becomes_a_set_and_annotated_classes_and_ignored_voxels_stay() -> None:
    sets = class_sets(CLASSES, [("first",), ("second", "third")])
    target = np.array([0, 1, IGNORED, 0], np.int16)
    left_open = leave_open(target, CLASSES, ("first",), sets)
    assert left_open.tolist() == [5, 1, IGNORED, 5]
    assert leave_open(target, CLASSES, ("second", "third"), sets)[0] == 4
    assert target.tolist() == [0, 1, IGNORED, 0]
    assert leave_open(target, CLASSES, ("first",), ()).tolist() == [IGNORED, 1, IGNORED, IGNORED]
    assert left_open.dtype == np.int16


def test_regions_that_were_not_annotated_are_ignored() -> None:
    target = np.array([[1, 1, 0], [1, 0, 0]], np.int16)
    assert leave_open(target, REGIONS, ("core",), ()).tolist() == [[IGNORED] * 3, [1, 0, 0]]


def test_the_dice_of_a_class_leaves_out_voxels_that_may_belong_to_it() -> None:
    logits = torch.nn.functional.one_hot(torch.tensor([[0, 1, 2, 2, 1]]), 3).movedim(-1, 1).float()
    labels = Labels.from_dataset_json(BOTH)
    target = torch.tensor([[3, 1, 3, 2, 3]])  # 3: background or the second class
    dice = PseudoDice(labels, ((0, 2),))
    dice.add(logits, target)
    assert dice.scores() == {"first": 2 / 3, "second": 1.0}


class Operations(TorchDispatchMode):
    """Records the names of the operations of torch."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_loss_and_scores_of_sets_of_classes_never_wait_for_a_gpu() -> None:
    """A number that is read waits for the GPU, and so does a list of indices, which is copied to it."""
    sets, labels = ((0, 2), (0, 1, 2)), Labels.from_dataset_json(BOTH)
    logits, target = torch.randn(2, 3, 8, 8, requires_grad=True), torch.randint(-1, 5, (2, 8, 8))
    with Operations() as operations:
        DiceCrossEntropy(regions=False, class_sets=sets)(logits, target).backward()
        PseudoDice(labels, sets).add(logits.detach(), target)
    assert operations.names.isdisjoint({"index", "index_put", "index_put_", "_local_scalar_dense"})
    assert {"logsumexp", "argmax"} <= operations.names


Loaded = Callable[..., PatchLoader]


def keep_every_third_slice(labels: Path) -> None:
    for file in labels.iterdir():
        array, geometry = read_label(file)
        array[np.arange(len(array)) % 3 > 0] = 0
        write_label(array, geometry, file)


@pytest.fixture
def loader(make_dataset: Callable[..., Path], make_plan: Callable[..., Any], tmp_path: Path) -> Loaded:
    """Preprocess a dataset with keys of dataset.json, and return a loader of its cases."""

    def load(dims: int, *, foreground_share: float = 0.33, **keys: Any) -> PatchLoader:
        raw = make_dataset(labels=BOTH, **keys)
        if "unannotated_slices" in keys:
            keep_every_third_slice(raw / "labelsTr")
        dataset, store = load_dataset(raw), Store(tmp_path / "store")
        plan = make_plan(dims=dims, spacing=(2, 1, 1), labels=dataset.labels, patch_size=(8, 8, 8)[-dims:])
        preprocess_dataset(dataset, plan, plan.configuration(), store, processes=1)
        return PatchLoader(
            store,
            store.names(),
            configuration=plan.configuration().model_copy(update={"batch_size": 8}),
            labels=plan.labels,
            class_sets=class_sets(plan.labels, [store.record(name).annotated_labels for name in store.names()]),
            settings=Settings(seed=0, foreground_share=foreground_share),
        )

    return load


@pytest.mark.parametrize("dims", [2, 3])
def test_every_patch_holds_annotated_voxels(loader: Loaded, dims: int) -> None:
    patches = loader(dims, unannotated_slices="empty", shape=(20, 12, 10))
    annotated, every = 0, 0
    for number in range(15):
        for target in patches.batch(number).target:
            assert (target != IGNORED).any()
            annotated, every = annotated + (target != IGNORED).sum(), every + target.size
    # A slice is annotated or not; a volume has slices of both kinds.
    assert annotated == every if dims == 2 else every / 4 < annotated < every / 2


def test_patches_of_partly_annotated_cases_claim_nothing_about_the_rest(loader: Loaded) -> None:
    patches = loader(2, annotated_labels={"a": ["first"], "b": ["second"]})
    assert patches.make_patch.targets.class_sets == ((0, 1), (0, 2))
    found: dict[str, set[int]] = {}
    for number in range(15):
        batch = patches.batch(number)
        for name, target in zip(batch.names, batch.target, strict=True):
            found.setdefault(name, set()).update(np.unique(target).tolist())
    assert 0 not in found["a"] | found["b"]
    assert 4 in found["a"]
    assert 3 in found["b"]
    assert found["c"] == {0, 1, 2}
