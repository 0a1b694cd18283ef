import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessExitedException

import autocrossdim
from autocrossdim.commands.plugins import FoldTask
from autocrossdim.commands.project import Project
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.system.errors import UserError
from trainers.distributed import SyncedBatchNorm
from trainers.run import Run

SETTINGS = {
    "epochs": 3,
    "steps_per_epoch": 2,
    "validation_batches": 1,
    "workers": 0,
    "augmentation": "none",
    "slices_first": False,
}


@pytest.fixture(scope="module")
def work(planned: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a work directory in which a batch of four was planned, which can be divided."""
    folder = tmp_path_factory.mktemp("several")
    autocrossdim.plan_and_preprocess(
        planned[0], work=folder, encoder="test_efficientnet", memory=1, trial=False, batch_size=4, processes=1
    )
    return folder


def train(planned: tuple[Path, Path], work: Path, fold: int, *, weights: str = "random", **options: Any) -> FoldFolder:
    options = {"set": SETTINGS, **options}
    autocrossdim.train(planned[0], work=work, fold=fold, weights=weights, device="cpu", **options)
    return Workspace.of(planned[0].name, work).fold("dx", fold)


def losses(folder: FoldFolder) -> list[float]:
    return [json.loads(line)["loss"] for line in folder.history.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_two_processes_learn_what_one_learns_from_the_same_batches(planned: tuple[Path, Path], work: Path) -> None:
    folder = train(planned, work, 0, devices=2, max_time="24h")
    together, network = losses(folder), Checkpoint.read(folder.latest).network
    assert (folder.validation / "summary.json").exists()
    train(planned, work, 0, restart=True)
    assert together == pytest.approx(losses(folder), rel=1e-3)
    alone = Checkpoint.read(folder.latest).network
    for name in network:
        if name.endswith("running_mean"):
            torch.testing.assert_close(network[name], alone[name], rtol=0.02, atol=5e-3, msg=name)


@pytest.mark.slow
def test_two_processes_learn_from_unlabelled_scans_within_the_time(
    planned: tuple[Path, Path], work: Path, tmp_path: Path
) -> None:
    raw, own = tmp_path / planned[0].name, tmp_path / "own"
    shutil.copytree(planned[0], raw)
    shutil.copytree(work, own)
    (raw / "imagesUn").symlink_to(raw / "imagesTs")
    settings = {**SETTINGS, "epochs": 10_000, "unlabelled": 1}
    folder = train((raw, own), own, 0, devices=2, max_time="4s", set=settings, restart=True)
    checkpoint = Checkpoint.read(folder.latest)
    assert checkpoint.complete
    assert len(checkpoint.split["unlabelled"]) == 2
    assert 0 < checkpoint.run.taught_steps < checkpoint.run.step
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint.network.values())


@pytest.mark.slow
def test_under_torchrun(planned: tuple[Path, Path], work: Path) -> None:
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("-m", "autocrossdim", "train", str(planned[0]), "--work", str(work), "--fold", "1", "--weights", "random"),
        *("--device", "cpu", "--epochs", "1", "--set", "steps_per_epoch=2", "--set", "workers=0"),
        *("--set", "slices_first=false"),
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        encoding="utf-8",
        timeout=200,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("epoch 1 of 1,") == 1, "only the first process reports"
    folder = Workspace.of(planned[0].name, work).fold("dx", 1)
    assert Checkpoint.read(folder.latest).complete
    assert (folder.validation / "summary.json").exists()


def on_two_nodes(*python: str) -> tuple[str, str]:
    """Run Python with these arguments in two processes that train together, and return what each printed."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    # What torchrun sets on each node; that it starts processes is tested above.
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0", "GROUP_WORLD_SIZE": "2"}
    common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "run"}
    nodes = [
        subprocess.Popen(
            [sys.executable, *python],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            env={**os.environ, **common, "RANK": node, "GROUP_RANK": node, "OMP_NUM_THREADS": "1"},
        )
        for node in ("0", "1")
    ]
    try:
        first, second = (node.communicate(timeout=200)[0] for node in nodes)
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], first + second
    return first, second


@pytest.mark.slow
def test_two_nodes_train_a_fold_together(planned: tuple[Path, Path], work: Path) -> None:
    first, second = on_two_nodes(
        *("-m", "autocrossdim", "train", str(planned[0]), "--work", str(work), "--fold", "4"),
        *("--weights", "random", "--device", "cpu", "--epochs", "1", "--set", "steps_per_epoch=2"),
        *("--set", "workers=0", "--set", "validation_batches=1", "--set", "slices_first=false"),
    )
    assert first.count("epoch 1 of 1,") == 1
    assert "epoch 1 of 1," not in second
    folder = Workspace.of(planned[0].name, work).fold("dx", 4)
    assert Checkpoint.read(folder.latest).complete
    assert (folder.validation / "summary.json").exists()


UNEQUAL_SHARES = """
import torch
import torch.distributed as dist
from trainers.loss import DiceCrossEntropy
from trainers.soft import SoftLoss

dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
logits = torch.randn(3, 3, 4, 4, 4)
classes, regions = torch.randint(-1, 3, (3, 4, 4, 4)), torch.randint(-1, 2, (3, 3, 4, 4, 4))
classes[0, 1:], regions[0, :, 1:] = -1, -1
soft = torch.rand(3, 3, 4, 4, 4)
usual = [DiceCrossEntropy(False), DiceCrossEntropy(False, class_sets=[(0, 2)]), DiceCrossEntropy(True)]
targets = classes, classes + (classes == 0) * 3, regions
cases = [*zip(usual, targets), *((SoftLoss(loss), soft) for loss in usual[1:])]
found = []
for loss, target in cases:
    own = logits[rank::2].clone().requires_grad_()
    value = loss(own, target[rank::2])
    value.backward()
    mean = value.detach().clone()
    dist.all_reduce(mean)
    found.append((mean / 2, own.grad / 2))  # gradients are averaged, too
dist.destroy_process_group()
for (loss, target), (value, gradient) in zip(cases, found):
    whole = logits.clone().requires_grad_()
    expected = loss(whole, target)
    expected.backward()
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, whole.grad[rank::2])
"""


@pytest.mark.slow
def test_the_loss_does_not_depend_on_how_a_batch_is_divided() -> None:
    """Three patches for two processes, and most voxels of one patch are ignored."""
    on_two_nodes("-c", UNEQUAL_SHARES)


SCORED_DIFFERENTLY = """
import json, os, sys
import autocrossdim, trainers.loop
from trainers.pseudo_dice import Scores

scores = iter(0.1 * epoch * (os.environ["RANK"] == "0") for epoch in range(99))
trainers.loop.score = lambda *_, **__: Scores(1.0, {"organ": next(scores)})
raw, work, settings = sys.argv[1:]
autocrossdim.train(raw, work=work, fold=3, weights="random", device="cpu", set=json.loads(settings))
"""


@pytest.mark.slow
def test_processes_agree_on_the_end_although_their_devices_round_differently(
    planned: tuple[Path, Path], work: Path, tmp_path: Path
) -> None:
    """By its own score, the second process would be on a plateau, and end before the first one."""
    settings = {**SETTINGS, "epochs": 4, "steps_per_epoch": 1, "patience": 1, "cooldown": 1}
    own = shutil.copytree(work, tmp_path / "own")  # other settings than those of the other tests
    first, _ = on_two_nodes("-c", SCORED_DIFFERENTLY, str(planned[0]), str(own), json.dumps(settings))
    assert first.count("epoch 4 of 4,") == 1
    assert "schedule is shortened" not in first


@pytest.mark.parametrize(("started_here", "expected"), [("4", 1), ("2", 3)])
def test_loader_workers_share_the_cores_of_their_own_node(
    planned: tuple[Path, Path], work: Path, monkeypatch: pytest.MonkeyPatch, started_here: str, expected: int
) -> None:
    from trainers import data

    monkeypatch.setattr(data, "default_processes", lambda: 8)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "run")
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", started_here)
    project = Project.open(planned[0], work=work)
    task = FoldTask(
        plan=project.plan,
        configuration=project.plan.configuration(),
        store=project.store("dx"),
        groups={},
        fold=0,
        split=project.split(0),
        folder=project.workspace.fold("dx", 0),
        weights="random",
        device="cpu",
        devices=1,
        settings={},
        restart=False,
    )
    assert data.number_of_workers(Run.of(task)) == expected


@pytest.mark.slow
def test_an_error_in_the_processes_is_one_clear_message(planned: tuple[Path, Path], work: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        train(planned, work, 2, devices=2, weights="nowhere.pth")


@pytest.mark.slow
def test_an_error_in_one_of_the_processes_ends_the_others_with_its_message(
    planned: tuple[Path, Path], work: Path
) -> None:
    """Only the first process writes checkpoints; the other one waits for it."""
    folder = Workspace.of(planned[0].name, work).fold("dx", 2)
    folder.best.mkdir(parents=True)
    with pytest.raises(UserError, match="checkpoint_best: is a directory"):
        train(planned, work, 2, devices=2)


@pytest.mark.parametrize(
    ("signal_name", "error", "message"),
    [
        ("SIGKILL", UserError, "--devices 2: one of the processes was killed by SIGKILL.* to resume"),
        ("SIGSEGV", ProcessExitedException, "terminated"),
    ],
)
def test_a_process_that_is_killed_is_named_with_what_to_do(
    planned: tuple[Path, Path],
    work: Path,
    monkeypatch: pytest.MonkeyPatch,
    signal_name: str,
    error: type[Exception],
    message: str,
) -> None:
    class Killed:
        def launch(self, job: Callable[[object], object]) -> None:
            raise ProcessExitedException(
                "terminated", error_index=1, error_pid=1, exit_code=-9, signal_name=signal_name
            )

    monkeypatch.setattr("trainers.launch._fabric", lambda *_: Killed())
    with pytest.raises(error, match=message):
        train(planned, work, 3, devices=2, restart=True)


def test_a_batch_cannot_be_divided_among_more_devices_than_it_has_patches(
    planned: tuple[Path, Path], work: Path
) -> None:
    with pytest.raises(UserError, match="--devices 5: a batch of 4"):
        train(planned, work, 3, devices=5)


@pytest.mark.parametrize(
    ("device", "message"),
    [("cuda", "--devices 3: this machine has 2 usable GPUs"), ("cuda:1", "--device cuda:1 names a single GPU")],
)
def test_gpus_that_do_not_exist_or_were_not_meant_are_refused(
    device: str, message: str, planned: tuple[Path, Path], work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=message):
        autocrossdim.train(
            planned[0], work=work, fold=3, weights="random", device=device, devices=3, set=SETTINGS, restart=True
        )


@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (2, 3, 4, 5, 6)])
def test_synced_batch_norm_of_one_process_is_batch_norm(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    make: Any = nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm3d
    synced, plain = make(3), make(3)
    x = torch.randn(shape) * 3 + 1
    inputs = [x.clone().requires_grad_(), x.clone().requires_grad_()]
    with SyncedBatchNorm():
        first = synced(inputs[0])
    second = plain(inputs[1])
    torch.testing.assert_close(first, second, rtol=1e-4, atol=1e-5)
    for output in (first, second):
        output.square().mul(torch.linspace(0, 1, output.numel()).view(shape)).sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(synced.running_var, plain.running_var, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(synced.weight.grad, plain.weight.grad, rtol=1e-3, atol=1e-3)
    with SyncedBatchNorm():
        torch.testing.assert_close(synced.eval()(x), plain.eval()(x), rtol=1e-4, atol=1e-4)
