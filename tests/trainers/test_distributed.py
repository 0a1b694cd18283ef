import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autocrossdim import api
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import PlanOptions
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.system.errors import UserError
from trainers.distributed import SyncedBatchNorm

SETTINGS = {
    "epochs": 3,
    "steps_per_epoch": 2,
    "validation_batches": 1,
    "workers": 0,
    "augment": False,
    "slices_first": False,
}


@pytest.fixture(scope="module")
def work(planned: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Planned for a batch of four, to be divided."""
    folder = tmp_path_factory.mktemp("several")
    options = PlanOptions(memory=1, trial=False, batch_size=4)
    api.plan_and_preprocess(planned[0], folder, options=options, processes=1)
    return folder


def train(planned: tuple[Path, Path], work: Path, fold: int, devices: int) -> FoldFolder:
    api.train(planned[0], work, fold=[fold], weights="random", device="cpu", settings=SETTINGS, devices=devices)
    return Workspace.of(planned[0].name, work).fold("dx", fold)


def curve(folder: FoldFolder) -> list[float]:
    return [json.loads(line)["loss"] for line in folder.history.read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_same_batches(planned: tuple[Path, Path], work: Path) -> None:
    both = train(planned, work, 0, devices=2)
    together, ended = curve(both), Checkpoint.read(both.latest).network
    assert (both.validation / "summary.json").exists()
    api.train(planned[0], work, fold=[0], weights="random", device="cpu", settings=SETTINGS, devices=1, restart=True)
    assert together == pytest.approx(curve(both), rel=1e-3)
    alone = Checkpoint.read(both.latest).network
    statistics = [name for name in ended if name.endswith("running_mean")]
    for name in statistics:
        torch.testing.assert_close(ended[name], alone[name], rtol=0.02, atol=5e-3, msg=name)


@pytest.mark.slow
def test_under_torchrun(planned: tuple[Path, Path], work: Path) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("-m", "autocrossdim", "train", str(planned[0]), "--work", str(work), "--fold", "1", "--weights", "random"),
        *("--device", "cpu", "--epochs", "1", "--set", "steps_per_epoch=2", "--set", "workers=0"),
        *("--set", "slices_first=false"),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1,") == 1, "one process speaks"
    folder = Workspace.of(planned[0].name, work).fold("dx", 1)
    assert Checkpoint.read(folder.latest).complete
    assert (folder.validation / "summary.json").exists()


@pytest.mark.slow
def test_a_fault_in_the_processes_is_one_clear_error(planned: tuple[Path, Path], work: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        api.train(planned[0], work, fold=[2], weights="nowhere.pth", device="cpu", settings=SETTINGS, devices=2)


def test_a_batch_cannot_be_divided_among_more_devices_than_it_has_patches(
    planned: tuple[Path, Path], work: Path
) -> None:
    with pytest.raises(UserError, match="--devices 5: a batch of 4"):
        train(planned, work, 3, devices=5)


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (2, 3, 4, 5, 6)])
def test_synced_batch_norm_of_one_process_is_batch_norm(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    make: Any = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm3d
    mine, theirs = make(3), make(3)
    x = torch.randn(shape) * 3 + 1
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    with SyncedBatchNorm():
        first = mine(inputs[0])
    second = theirs(inputs[1])
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    for output in (first, second):
        output.square().mul(torch.linspace(0, 1, output.numel()).view(shape)).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(mine.running_var, theirs.running_var, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine.weight.grad, theirs.weight.grad, rtol=1e-3, atol=1e-3)
    with SyncedBatchNorm():
        torch.testing.assert_close(mine.eval()(x), theirs.eval()(x), rtol=1e-4, atol=1e-4)
