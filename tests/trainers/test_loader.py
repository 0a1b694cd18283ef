import os
import signal
import time
from pathlib import Path

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
from autocrossdim.system.errors import UserError
from trainers.loader import PatchLoader, batches

NAMES = [f"case_{i:02d}" for i in range(5)]


def parts(planned: tuple[Path, Path], configuration: str = "dx") -> tuple[Store, Plan, Configuration]:
    raw, work = planned
    space = Workspace.of(raw.name, work)
    plan = Plan.read(space.plan)
    return Store(space.preprocessed("dx")), plan, plan.configuration(configuration)


def loader(planned: tuple[Path, Path], configuration: str = "dx", **changes: object) -> PatchLoader:
    store, plan, made = parts(planned, configuration)
    return PatchLoader(store, NAMES, made, plan.labels, **{"seed": 0, **changes})  # type: ignore[arg-type]


def test_the_shares_of_several_processes_are_the_whole_batch(planned: tuple[Path, Path]) -> None:
    whole = loader(planned).batch(5)
    for rank in range(2):
        mine = loader(planned, share=slice(rank, None, 2)).batch(5)
        assert mine["names"] == whole["names"][rank::2]
        for key in ("data", "target"):
            np.testing.assert_array_equal(mine[key], whole[key][rank::2])


@pytest.mark.parametrize("configuration", ["dx", "omnia"])
def test_a_batch_has_the_planned_shape(planned: tuple[Path, Path], configuration: str) -> None:
    made = parts(planned, configuration)[2]
    batch = loader(planned, configuration).batch(0)
    assert batch["data"].shape == (made.batch_size, 1, *made.patch_size)
    assert batch["target"].shape == (made.batch_size, *made.patch_size)
    assert set(np.unique(batch["target"])) <= {0, 1, 2}


def test_neighbouring_slices_are_channels(planned: tuple[Path, Path]) -> None:
    store, plan, made = parts(planned, "omnia")
    three = made.model_copy(update={"slices": 3})
    one = PatchLoader(store, NAMES, made, plan.labels, seed=0, augment=False).batch(3)
    batch = PatchLoader(store, NAMES, three, plan.labels, seed=0, augment=False).batch(3)
    assert batch["data"].shape == (made.batch_size, 3, *made.patch_size)
    np.testing.assert_allclose(batch["data"][:, 1:2], one["data"])
    np.testing.assert_allclose(batch["target"], one["target"])


def test_a_batch_depends_on_its_number_alone(planned: tuple[Path, Path]) -> None:
    first, second = loader(planned), loader(planned, first=7)
    for _ in range(7):
        next(first)
    np.testing.assert_array_equal(next(first)["data"], next(second)["data"])
    assert not np.array_equal(loader(planned).batch(0)["data"], loader(planned, seed=1).batch(0)["data"])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_deliver_what_one_process_would(planned: tuple[Path, Path], workers: int) -> None:
    alone = [loader(planned).batch(number)["data"] for number in range(5)]
    with batches(loader(planned, workers=workers), workers) as delivered:
        for expected in alone:
            np.testing.assert_array_equal(next(delivered)["data"], expected)


def test_a_batch_is_the_same_to_the_last_bit_however_many_threads_and_draws_there_were(
    planned: tuple[Path, Path],
) -> None:
    made = loader(planned, elastic=0.5)
    expected = [made.batch(number) for number in range(6)]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    try:
        for number in reversed(range(6)):
            again = made.batch(number)
            for key in ("data", "target", "names"):
                np.testing.assert_array_equal(again[key], expected[number][key])
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@settings(max_examples=30, deadline=None)
@given(cases=st.integers(1, 40), batch=st.integers(1, 50), first=st.integers(0, 10**6), seed=st.integers(0, 2**32 - 1))
def test_no_case_is_starved(cases: int, batch: int, first: int, seed: int) -> None:
    """However many batches are drawn, and from wherever on, no case is drawn three times before another is once."""
    names = [f"case_{i}" for i in range(cases)]
    made = Configuration.model_construct(dims=2, patch_size=(8, 8), batch_size=batch, slices=1)
    labels = Labels(foreground={"a": (1,)})
    dealt = PatchLoader(Store(Path("unused")), names, made, labels, seed=seed)
    draws = [name for number in range(first, first + 2 * cases // batch + 2) for name in dealt._names(number)]
    counts = [draws.count(name) for name in names]
    assert min(counts) >= 1
    assert max(counts) - min(counts) <= 2
    begun = [name for number in range(2 * cases // batch + 2) for name in dealt._names(number)]
    assert set(begun[:cases]) == set(names)


def test_foreground_patches_are_centred_on_a_class(planned: tuple[Path, Path]) -> None:
    made = parts(planned, "omnia")[2].model_copy(update={"patch_size": (8, 8), "batch_size": 6})
    store, plan, _ = parts(planned)
    everything = PatchLoader(store, NAMES, made, plan.labels, seed=0, foreground_share=1.0, augment=False)
    assert all((everything.batch(number)["target"] > 0).reshape(6, -1).any(1).all() for number in range(10))


def test_only_what_a_patch_needs_is_read(planned: tuple[Path, Path]) -> None:
    made = parts(planned, "dx")[2].model_copy(update={"patch_size": (4, 6, 8), "batch_size": 2})
    store, plan, _ = parts(planned)
    few = PatchLoader(store, NAMES, made, plan.labels, seed=0)
    read: list[tuple[int, ...]] = []

    class Watched:
        def __init__(self, array: blosc2.NDArray) -> None:
            self.array, self.shape = array, array.shape

        def __getitem__(self, where: tuple[slice, ...]) -> np.ndarray:
            found: np.ndarray = self.array[where]
            read.append(found.shape[-3:])
            return found

    for name in NAMES:
        case = store.open(name)
        few._open[name] = StoredCase(name, Watched(case.image), Watched(case.label), case.voxels)
    for number in range(20):
        few.batch(number)
    # 1.4 times as far, turned by 30 degrees about each axis: never more than the patch's diagonal and a half.
    assert len(read) == 2 * 2 * 20
    assert max(max(shape) for shape in read) <= 1.5 * np.linalg.norm((4, 6, 8)) + 2
    assert (4, 6, 8) in read


@pytest.mark.parametrize("augment", [False, True])
def test_regions_and_the_voxels_to_ignore_reach_the_targets(planned: tuple[Path, Path], augment: bool) -> None:
    store, plan, made = parts(planned)
    exclusive = PatchLoader(store, NAMES, made, plan.labels, seed=0, augment=augment).batch(2)["target"]
    assert {0, 1, 2} == set(np.unique(exclusive))
    regions = Labels(foreground={"whole": (1, 2), "nodule": (2,)}, regions_class_order=(1, 2))
    whole = PatchLoader(store, NAMES, made, regions, seed=0, augment=augment).batch(2)["target"]
    np.testing.assert_array_equal(whole[:, 0], exclusive > 0)
    np.testing.assert_array_equal(whole[:, 1], exclusive == 2)
    ignoring = Labels(foreground={"organ": (1,)}, ignore=2)
    partly = PatchLoader(store, NAMES, made, ignoring, seed=0, augment=augment).batch(2)["target"]
    np.testing.assert_array_equal(partly, np.where(exclusive == 2, -1, exclusive))
    both = Labels(foreground={"organ": (1,)}, ignore=2, regions_class_order=(1,))
    some = PatchLoader(store, NAMES, made, both, seed=0, augment=augment).batch(2)["target"]
    np.testing.assert_array_equal(some[:, 0], partly)


@pytest.mark.parametrize("foreground", [{"a": (1,)}, {"a": (3,), "b": (5,)}, {"a": (1, 3), "b": (3,)}])
def test_values_that_are_not_declared_are_named(
    planned: tuple[Path, Path], foreground: dict[str, tuple[int, ...]]
) -> None:
    store, _, made = parts(planned)
    labels = Labels(foreground=foreground, regions_class_order=(1, 3) if (1, 3) in foreground.values() else None)
    strict = PatchLoader(store, NAMES, made, labels, seed=0)
    with pytest.raises(UserError, match=r"label value\(s\) \[4, 9\] are not declared"):
        strict._target(np.array([[0, 4], [9, 4]], dtype=np.uint8))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_worker_says_which_case_is_damaged(planned: tuple[Path, Path], workers: int, tmp_path: Path) -> None:
    _, plan, made = parts(planned)
    broken = PatchLoader(Store(tmp_path), NAMES, made, plan.labels, seed=0)
    started = time.monotonic()
    with pytest.raises(UserError, match=r"case_0\d.json.*damaged"), batches(broken, workers) as delivered:
        next(delivered)
    assert time.monotonic() - started < 10


# batchgenerators' own thread ends with an error of its own, which nobody catches.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_killed_worker_ends_the_run_and_leaves_none_behind(planned: tuple[Path, Path]) -> None:
    with batches(loader(planned, workers=2), 2) as delivered:
        next(delivered)
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
        if not children.exists():
            pytest.skip("this system does not list child processes under /proc")
        workers = [int(number) for number in children.read_text().split()]
        workers = [number for number in workers if "pytest" in Path(f"/proc/{number}/cmdline").read_text()]
        os.kill(workers[0], signal.SIGKILL)
        with pytest.raises(UserError, match="was killed"):
            for _ in range(200):
                next(delivered)
    assert not any(Path(f"/proc/{number}/cwd").exists() for number in workers)
