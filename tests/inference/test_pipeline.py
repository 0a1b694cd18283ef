import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from torch import Tensor, nn

from autocrossdim import api
from autocrossdim.inference.inputs import find_inputs
from autocrossdim.inference.pipeline import overlapped
from autocrossdim.inference.predictor import Model, Predictor
from autocrossdim.system.errors import UserError


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    assert threading.active_count() == before


class Diary:
    """Reads, computes and writes by waiting, and remembers when."""

    def __init__(self, seconds: float = 0.0, fails: str = "", error: Exception | None = None) -> None:
        self.seconds, self.fails, self.error = seconds, fails, error
        self.begun: list[str] = []
        self.ended: list[str] = []

    def do(self, what: str) -> None:
        self.begun.append(what)
        time.sleep(self.seconds)
        if what == self.fails:
            assert self.error is not None
            raise self.error
        self.ended.append(what)

    def run(self, count: int) -> list[int]:
        def read(item: int) -> int:
            self.do(f"read {item}")
            return item

        def compute(item: int, value: int) -> int:
            assert value == item
            # What was read ahead at this moment, and what is not yet written.
            assert sum(entry.startswith("read") for entry in self.begun) <= item + 2
            assert sum(entry.startswith("write") for entry in self.ended) >= item - 2
            self.do(f"compute {item}")
            return item

        def write(item: int, _: int) -> None:
            self.do(f"write {item}")

        return list(overlapped(range(count), lambda item: f"case {item}", read, compute, write))


def test_items_come_in_order_once_they_are_written() -> None:
    assert Diary().run(0) == []
    diary = Diary()
    assert diary.run(5) == list(range(5))
    assert [entry for entry in diary.ended if "write" in entry] == [f"write {i}" for i in range(5)]


def test_the_three_run_at_the_same_time() -> None:
    diary = Diary(seconds=0.1)
    started = time.monotonic()
    diary.run(6)
    assert time.monotonic() - started < 0.1 * 3 * 6 * 0.75  # 1.8 s one after the other, 0.8 s at best


@pytest.mark.parametrize("step", ["read", "compute", "write"])
def test_one_failure_ends_the_run_and_what_is_finished_is_written(step: str) -> None:
    diary = Diary(fails=f"{step} 2", error=UserError("no such thing"))
    with pytest.raises(UserError, match="case 2: no such thing"):
        diary.run(6)
    assert [entry for entry in diary.ended if "write" in entry] == ["write 0", "write 1"]
    assert "read 5" not in diary.begun


def test_memory_that_runs_out_is_told_with_the_case_and_a_bug_keeps_its_own_words() -> None:
    with pytest.raises(UserError, match="case 1: memory ran out while reading it"):
        Diary(fails="read 1", error=MemoryError()).run(2)
    with pytest.raises(UserError, match="case 0: memory ran out while predicting it"):
        Diary(fails="compute 0", error=torch.OutOfMemoryError("CUDA out of memory")).run(2)
    with pytest.raises(RuntimeError) as refused:
        torch.empty(10**15)
    with pytest.raises(UserError, match="case 0: memory ran out while predicting it"):
        Diary(fails="compute 0", error=refused.value).run(2)
    with pytest.raises(KeyError) as caught:
        Diary(fails="write 1", error=KeyError("x")).run(2)
    assert caught.value.__notes__ == ["This happened while writing case 1."]


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="Windows sends Ctrl-C by other means")
def test_control_c_ends_the_run_at_once_with_the_file_in_writing_whole(tmp_path: Path) -> None:
    code = """if True:
        import pathlib, time
        from autocrossdim.inference.pipeline import overlapped
        def compute(item, _):
            time.sleep(0.2 if item == 0 else 100)
        def write(item, _):
            pathlib.Path("started").touch()
            time.sleep(1)
            pathlib.Path("whole").touch()
        list(overlapped(range(5), str, lambda item: None, compute, write))
    """
    job = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(job.pid, signal.SIGINT)
    _, errors = job.communicate(timeout=20)
    assert job.returncode != 0
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert (tmp_path / "whole").exists()


class Bright(nn.Module):
    """Label 1 where the image is above 0."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([-x, x], dim=1) * self.scale


@pytest.fixture
def folder(
    tmp_path: Path,
    write_image: Callable[..., Path],
    make_plan: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """Five cases in `images`, and a model that any name stands for."""
    for number in range(5):
        image = np.random.default_rng(number).normal(size=(6, 7, 8)).astype(np.float32)
        write_image(tmp_path / "images" / f"case{number}_0000.nii.gz", image)
    model = Model(make_plan(patch_size=(4, 4, 4)), make_plan(patch_size=(4, 4, 4)).configuration(), [Bright().eval()])
    monkeypatch.setattr(Predictor, "load", lambda *_: Predictor([model], mirroring=False))
    return tmp_path


def names(paths: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in paths.iterdir())


def test_a_bad_case_is_named_and_the_folder_goes_on_where_it_stopped(folder: Path) -> None:
    bad = folder / "images" / "case2_0000.nii.gz"
    good = bad.read_bytes()
    bad.write_bytes(gzip.compress(gzip.decompress(good)[:-100]))
    with pytest.raises(UserError, match=r"case2_0000\.nii\.gz"):
        api.predict("any", folder / "images", folder / "out")
    assert names(folder / "out") == ["case0", "case1"]
    bad.write_bytes(good)
    kept = (folder / "out" / "case0.nii.gz").stat().st_mtime_ns
    api.predict("any", folder / "images", folder / "out")
    assert names(folder / "out") == [f"case{number}" for number in range(5)]
    assert (folder / "out" / "case0.nii.gz").stat().st_mtime_ns == kept


def test_parts_share_a_folder_among_machines(folder: Path) -> None:
    done = [api.predict("any", folder / "images", folder / f"out{i}", part=f"{i}/2") for i in range(2)]
    assert [[path.name for path in paths] for paths in done] == [
        ["case0.nii.gz", "case2.nii.gz", "case4.nii.gz"],
        ["case1.nii.gz", "case3.nii.gz"],
    ]
    for wrong in ("2/2", "1", "-1/2", "0/0", "a/b"):
        with pytest.raises(UserError, match=f"--part {wrong}: I/N"):
            api.predict("any", folder / "images", folder / "out", part=wrong)


def test_a_spacing_far_from_training_is_told_with_the_factor(
    folder: Path, write_image: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    write_image(folder / "images" / "case4_0000.nii.gz", np.ones((6, 7, 8), np.float32), spacing=(2.0, 1.0, 0.4))
    api.predict("any", folder / "images", folder / "out")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(told) == 1, "2.0 times is not yet far"
    assert "case4_0000.nii.gz: a spacing of 0.4 mm along x; " in told[0]
    assert "was trained at 1 mm, 2.5 times coarser" in told[0]


def test_a_4d_file_among_the_cases_is_named_and_nothing_is_written_of_it(folder: Path) -> None:
    image = sitk.Image(4, 5, 6, sitk.sitkFloat32)
    sitk.WriteImage(sitk.JoinSeries([image, image]), str(folder / "images" / "case0_0000.nii.gz"))
    with pytest.raises(UserError, match=r"case0_0000\.nii\.gz: a 4D image .* Split it"):
        api.predict("any", folder / "images", folder / "out")
    assert not (folder / "out").exists()


@pytest.mark.parametrize("name", ["case0_0001.nii.gz", "other_0001.nii.gz"])
def test_a_channel_the_model_does_not_know_is_named(folder: Path, write_image: Callable[..., Path], name: str) -> None:
    write_image(folder / "images" / name, np.zeros((3, 4, 5), np.float32))
    with pytest.raises(UserError, match=rf"{name}: the model takes 1 channel, 0000 to 0000"):
        api.predict("any", folder / "images", folder / "out")


def test_a_missing_channel_is_named(folder: Path, write_image: Callable[..., Path]) -> None:
    write_image(folder / "two" / "a_0000.nii.gz", np.zeros((3, 4, 5), np.float32))
    with pytest.raises(UserError, match=r"a_0001\.nii\.gz: no such file, but case 'a' needs 2 channels"):
        find_inputs(folder / "two", 2, ".nii.gz")
