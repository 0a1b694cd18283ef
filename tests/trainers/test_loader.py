import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from autocrossdim.data.store import Store
from autocrossdim.errors import UserError
from autocrossdim.plan import Configuration, Plan
from autocrossdim.workspace import Workspace
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
    np.testing.assert_allclose(next(first)["data"], next(second)["data"])
    assert not np.array_equal(loader(planned).batch(0)["data"], loader(planned, seed=1).batch(0)["data"])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_deliver_what_one_process_would(planned: tuple[Path, Path], workers: int) -> None:
    alone = [loader(planned).batch(number)["data"] for number in range(5)]
    with batches(loader(planned, workers=workers), workers) as delivered:
        for expected in alone:
            np.testing.assert_allclose(next(delivered)["data"], expected)


def test_foreground_patches_are_centred_on_a_class(planned: tuple[Path, Path]) -> None:
    made = parts(planned, "omnia")[2].model_copy(update={"patch_size": (8, 8), "batch_size": 6})
    store, plan, _ = parts(planned)
    everything = PatchLoader(store, NAMES, made, plan.labels, seed=0, foreground_share=1.0, augment=False)
    assert all((everything.batch(number)["target"] > 0).reshape(6, -1).any(1).all() for number in range(10))


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
