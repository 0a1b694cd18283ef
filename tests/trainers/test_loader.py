import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autocrossdim.preprocessing.store import Store, StoredCase
from autocrossdim.records.labels import Labels
from autocrossdim.records.plan import Configuration, Plan
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.device import CPU
from trainers import loader as loader_module
from trainers.loader import PatchLoader, Regions, _centre
from trainers.settings import Settings

NAMES = [f"case_{i:02d}" for i in range(5)]


def parts(planned: tuple[Path, Path], config: str = "dx") -> tuple[Store, Plan, Configuration]:
    raw, work = planned
    workspace = Workspace.of(raw.name, work)
    plan = Plan.read(workspace.plan)
    return Store(workspace.preprocessed("dx")), plan, plan.configuration(config)


def make_loader(
    planned: tuple[Path, Path],
    config: str = "dx",
    *,
    configuration: dict[str, Any] | None = None,
    labels: Labels | None = None,
    first: int = 0,
    workers: int = 1,
    share: slice = slice(None),
    **settings: Any,
) -> PatchLoader:
    """Return a loader over the planned cases; `configuration` holds changes to that of the plan."""
    store, plan, planned_configuration = parts(planned, config)
    return PatchLoader(
        store,
        NAMES,
        configuration=planned_configuration.model_copy(update=configuration or {}),
        labels=labels or plan.labels,
        settings=Settings(**{"seed": 0, **settings}),
        first=first,
        workers=workers,
        share=share,
    )


@pytest.mark.parametrize("config", ["dx", "omnia"])
def test_patches_made_after_the_worker_are_the_same(planned: tuple[Path, Path], config: str) -> None:
    worker = make_loader(planned, config, augmentation="strong", augment_on_gpu=True)
    for number in range(4):
        expected = make_loader(planned, config, augmentation="strong").batch(number)
        sent = pickle.loads(pickle.dumps(worker.generate_train_batch()))
        assert isinstance(sent, Regions)
        found = make_loader(planned, config, augmentation="strong").batch_of(sent, CPU)
        np.testing.assert_array_equal(found.data, expected.data)
        np.testing.assert_array_equal(found.target, expected.target)
        assert found.names == expected.names


def test_the_shares_of_several_processes_make_up_the_batch(planned: tuple[Path, Path]) -> None:
    whole = make_loader(planned).batch(5)
    for rank in range(2):
        part = make_loader(planned, share=slice(rank, None, 2)).batch(5)
        assert part.names == whole.names[rank::2]
        np.testing.assert_array_equal(part.data, whole.data[rank::2])
        np.testing.assert_array_equal(part.target, whole.target[rank::2])


def test_masks_of_a_previous_stage_follow_the_image_and_move_along_with_the_label(planned: tuple[Path, Path]) -> None:
    settings = {"augmentation": "strong", "stage_empty": 0.0, "stage_morphology": 0.0, "stage_component": 0.0}
    alone, cascade = make_loader(planned, **settings), make_loader(planned, **settings)
    # A previous stage that segments everything as it was annotated.
    cascade._cases = {
        name: replace(case, previous_stage=case.label) for name in NAMES for case in [cascade.store.open(name)]
    }
    for number in range(3):
        before, after = alone.batch(number), cascade.batch(number)
        np.testing.assert_array_equal(after.data[:, :1], before.data)
        np.testing.assert_array_equal(after.target, before.target)
        for channel, value in ((1, 1), (2, 2)):
            np.testing.assert_array_equal(after.data[:, channel], after.target == value)
    changed = make_loader(planned, **{**settings, "stage_empty": 1.0})
    changed._cases = cascade._cases
    assert not changed.batch(0).data[:, 1:].any()
    np.testing.assert_array_equal(changed.batch(0).data[:, :1], alone.batch(0).data)


@pytest.mark.parametrize("config", ["dx", "omnia"])
def test_a_batch_has_the_planned_shape(planned: tuple[Path, Path], config: str) -> None:
    configuration = parts(planned, config)[2]
    batch = make_loader(planned, config).batch(0)
    assert batch.data.shape == (configuration.batch_size, 1, *configuration.patch_size)
    assert batch.target.shape == (configuration.batch_size, *configuration.patch_size)
    assert set(np.unique(batch.target)) <= {0, 1, 2}


def test_the_augmentation_is_that_of_the_configuration_unless_it_is_set(planned: tuple[Path, Path]) -> None:
    def data(**options: Any) -> np.ndarray:
        return np.asarray(make_loader(planned, **options).batch(0).data)

    planned_none = {"configuration": {"augmentation": "none"}}
    unchanged = data(augmentation="none")
    assert np.array_equal(data(**planned_none), unchanged)
    assert not np.array_equal(data(), unchanged)
    assert np.array_equal(data(**planned_none, augmentation="strong"), data(augmentation="strong"))


def test_neighbouring_slices_are_channels(planned: tuple[Path, Path]) -> None:
    one = make_loader(planned, "omnia", augmentation="none").batch(3)
    three = make_loader(planned, "omnia", augmentation="none", configuration={"slices": 3}).batch(3)
    batch_size, _, *patch = one.data.shape
    assert three.data.shape == (batch_size, 3, *patch)
    np.testing.assert_allclose(three.data[:, 1:2], one.data)
    np.testing.assert_allclose(three.target, one.target)


def test_a_batch_depends_on_its_number_and_the_seed_alone(planned: tuple[Path, Path]) -> None:
    first, later = make_loader(planned), make_loader(planned, first=7)
    for _ in range(7):
        next(first)
    np.testing.assert_array_equal(next(first).data, next(later).data)
    assert not np.array_equal(make_loader(planned).batch(0).data, make_loader(planned, seed=1).batch(0).data)


def test_a_batch_is_bitwise_the_same_for_any_number_of_threads_and_earlier_draws(planned: tuple[Path, Path]) -> None:
    loader = make_loader(planned, augmentation="strong")
    expected = [loader.batch(number) for number in range(6)]
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    try:
        for number in reversed(range(6)):
            again = loader.batch(number)
            np.testing.assert_array_equal(again.data, expected[number].data)
            np.testing.assert_array_equal(again.target, expected[number].target)
            assert again.names == expected[number].names
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_only_some_cases_stay_open_and_batches_are_the_same(
    planned: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [make_loader(planned).batch(number).data for number in range(4)]
    monkeypatch.setattr(loader_module, "OPEN_CASES", 2)
    loader = make_loader(planned)
    for number, data in enumerate(expected):
        np.testing.assert_array_equal(loader.batch(number).data, data)
        assert len(loader._cases) <= 2


def test_a_batch_on_a_device_is_channels_last(planned: tuple[Path, Path]) -> None:
    batch = make_loader(planned).batch(0)
    data, target = batch.to(torch.device("cpu"))
    assert data.is_contiguous(memory_format=torch.channels_last_3d)
    assert target.dtype == torch.int64
    np.testing.assert_array_equal(data.numpy(), batch.data)


@settings(max_examples=30, deadline=None)
@given(cases=st.integers(1, 40), batch=st.integers(1, 50), first=st.integers(0, 10**6), seed=st.integers(0, 2**32 - 1))
def test_no_case_is_starved(cases: int, batch: int, first: int, seed: int) -> None:
    """From any batch on, no case is drawn for the third time before every other case was drawn once."""
    loader = PatchLoader(
        Store(Path("unused")),
        [f"case_{i}" for i in range(cases)],
        configuration=Configuration.model_construct(dims=2, patch_size=(8, 8), batch_size=batch, slices=1),
        labels=Labels(foreground={"a": (1,)}),
        settings=Settings(seed=seed),
    )
    draws = [name for number in range(first, first + 2 * cases // batch + 2) for name in loader._names(number)]
    counts = [draws.count(name) for name in loader.names]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 2
    from_start = [name for number in range(2 * cases // batch + 2) for name in loader._names(number)]
    assert set(from_start[:cases]) == set(loader.names)


def test_foreground_patches_are_centred_on_a_class(planned: tuple[Path, Path]) -> None:
    small = {"patch_size": (8, 8), "batch_size": 6}
    loader = make_loader(planned, "omnia", configuration=small, foreground_share=1.0, augmentation="none")
    assert all((loader.batch(number).target > 0).reshape(6, -1).any(1).all() for number in range(10))


def test_patches_are_centred_where_voxels_are_annotated_if_others_are_ignored(planned: tuple[Path, Path]) -> None:
    case = replace(parts(planned)[0].open(NAMES[0]), annotated_voxels=np.array([[3, 10, 12]]))

    def centres(case: StoredCase) -> set[tuple[int, ...]]:
        return {_centre(case, False, (1, 8, 8), np.random.default_rng(seed)) for seed in range(10)}

    assert centres(case) == {(3, 10, 12)}
    assert len(centres(replace(case, annotated_voxels=None))) > 1


@pytest.mark.parametrize(
    ("share", "batch", "centred"), [(0, 2, 0), (0.01, 2, 1), (0.33, 2, 1), (0.33, 12, 4), (1, 2, 2)]
)
def test_a_batch_has_a_foreground_patch_unless_the_share_is_0(
    planned: tuple[Path, Path], share: float, batch: int, centred: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = make_loader(planned, configuration={"batch_size": batch}, foreground_share=share)
    asked: list[bool] = []
    region = loader._region(NAMES[0], False, np.random.default_rng(0))
    monkeypatch.setattr(loader, "_region", lambda _, on_class, __: (asked.append(on_class), region)[1])
    loader.batch(0)
    assert asked.count(True) == centred


def test_only_what_a_patch_needs_is_read(planned: tuple[Path, Path]) -> None:
    loader = make_loader(planned, configuration={"patch_size": (4, 6, 8), "batch_size": 2})
    read: list[tuple[int, ...]] = []

    class Watched:
        def __init__(self, array: blosc2.NDArray) -> None:
            self.array, self.shape = array, array.shape

        def __getitem__(self, box: tuple[slice, ...]) -> np.ndarray:
            found: np.ndarray = self.array[box]
            read.append(found.shape[-3:])
            return found

    for name in NAMES:
        case = loader.store.open(name)
        loader._cases[name] = StoredCase(name, Watched(case.image), Watched(case.label), case.voxels)
    for number in range(20):
        loader.batch(number)
    # Scaled by up to 1.4 and rotated by up to 30 degrees about each axis: at most 1.5 diagonals of the patch.
    assert len(read) == 2 * 2 * 20
    assert max(max(shape) for shape in read) <= 1.5 * np.linalg.norm((4, 6, 8)) + 2
    assert (4, 6, 8) in read


@pytest.mark.parametrize("augmentation", ["none", "strong"])
def test_regions_and_ignored_voxels_reach_the_targets(planned: tuple[Path, Path], augmentation: str) -> None:
    def target(labels: Labels | None = None) -> np.ndarray:
        return make_loader(planned, labels=labels, augmentation=augmentation).batch(2).target

    exclusive = target()
    assert {0, 1, 2} == set(np.unique(exclusive))
    regions = target(Labels(foreground={"whole": (1, 2), "nodule": (2,)}, regions_class_order=(1, 2)))
    np.testing.assert_array_equal(regions[:, 0], exclusive > 0)
    np.testing.assert_array_equal(regions[:, 1], exclusive == 2)
    ignoring = target(Labels(foreground={"organ": (1,)}, ignore=2))
    np.testing.assert_array_equal(ignoring, np.where(exclusive == 2, -1, exclusive))
    both = target(Labels(foreground={"organ": (1,)}, ignore=2, regions_class_order=(1,)))
    np.testing.assert_array_equal(both[:, 0], ignoring)
