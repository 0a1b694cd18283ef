"""`autocrossdim predict`, killed at random moments: every file is complete, and the next run resumes."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import read_label, write_array
from autocrossdim.inference.predictor import Predictor

CASES, KILLS = 20, 3
SHAPE = (20, 160, 160)  # takes about 50 ms to write, so that a kill often interrupts writing
SPACING = (0.1, 0.1, 0.1)  # few voxels remain at the network's 1 mm, so prediction is quick


@pytest.fixture(scope="module")
def model(write_model: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("kill") / "model", dims=3)


def write_images(folder: Path) -> None:
    chance = np.random.default_rng(0)
    geometry = Geometry(SHAPE, SPACING, (1.0, 2.0, 3.0), (0, 1, 0, 1, 0, 0, 0, 0, -1), 3)
    image = chance.normal(size=SHAPE)
    write_array(image, geometry, folder / "case_00_0000.nii.gz")
    content = (folder / "case_00_0000.nii.gz").read_bytes()
    for case in range(1, CASES):
        (folder / f"case_{case:02d}_0000.nii.gz").write_bytes(content)


def start(model: Path, images: Path, output: Path) -> subprocess.Popen[str]:
    words = ["predict", model, "-i", images, "-o", output, "--probabilities", "--device", "cpu", "--no-mirroring"]
    return subprocess.Popen(
        [sys.executable, "-m", "autocrossdim", *map(str, words)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        encoding="utf-8",
    )


def check_results(output: Path) -> set[str]:
    """Open every visible file; return the names of the finished cases."""
    done = set()
    for file in output.iterdir():
        # A temporary name is never taken for a result; tables and the files about the labels are no cases.
        if file.name.startswith(".") or file.suffix not in (".gz", ".npz"):
            continue
        if file.suffix == ".npz":
            with np.load(file) as archive:
                assert archive["probabilities"].shape == (2, *SHAPE)
        else:
            label, geometry = read_label(file)
            assert label.shape == SHAPE
            assert geometry.spacing == pytest.approx(SPACING)
            case = file.name.removesuffix(".nii.gz")
            assert (output / f"{case}.npz").exists(), "a case with a segmentation must be complete"
            done.add(case)
    return done


@pytest.mark.slow
def test_no_file_is_left_incomplete_and_the_next_run_resumes(model: Path, tmp_path: Path) -> None:
    images, output = tmp_path / "in", tmp_path / "out"
    write_images(images)
    chance = random.Random(0)
    done: set[str] = set()
    untouched: dict[str, int] = {}
    for _ in range(KILLS):
        before = set(output.iterdir()) if output.exists() else set()
        process = start(model, images, output)
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            if output.exists() and set(output.iterdir()) - before:
                break
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 0.6))
        process.send_signal(signal.SIGKILL)
        _, said = process.communicate()
        assert "error" not in said, said
        found = check_results(output)
        assert found >= done
        for name, written in untouched.items():
            assert (output / name).stat().st_mtime_ns == written, f"{name} was written again"
        done = found
        untouched = {f"{case}.nii.gz": (output / f"{case}.nii.gz").stat().st_mtime_ns for case in done}
    assert len(done) < CASES, "every kill came too late to test anything"

    process = start(model, images, output)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert len(check_results(output)) == CASES
    expected = Predictor.load(model, device="cpu", mirroring=False)(images / "case_00_0000.nii.gz")
    for case in range(CASES):
        np.testing.assert_array_equal(read_label(output / f"case_{case:02d}.nii.gz")[0], expected.label)
