import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pytest
import torch

import autocrossdim
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.workspace import Workspace

KILLS = 3
EPOCHS = 3 * KILLS  # a run does one or two before it is killed


@pytest.mark.slow
def test_a_run_killed_at_random_ends_with_bitwise_the_weights_of_an_undisturbed_one(
    planned: tuple[Path, Path], another_work: Callable[[str], Path], quick: dict[str, object]
) -> None:
    raw = planned[0]
    settings = {**quick, "epochs": EPOCHS, "slices_first": False}
    undisturbed, killed = another_work("undisturbed"), another_work("killed")
    autocrossdim.train(raw, work=undisturbed, fold=0, weights="random", device="cpu", set=settings)
    command = [sys.executable, "-m", "autocrossdim", "train", str(raw), "--work", str(killed), "--fold", "0"]
    command += ["--weights", "random", "--device", "cpu", "--epochs", str(EPOCHS), "--set", "workers=1"]
    command += [
        f"--set={name}={json.dumps(value)}" for name, value in settings.items() if name not in ("workers", "epochs")
    ]
    expected, found = (Workspace.of(raw.name, work).fold("dx", 0) for work in (undisturbed, killed))
    history = [json.loads(line) for line in expected.history.read_text(encoding="utf-8").splitlines()]
    epoch = median(line["seconds"] for line in history)
    delays = random.Random(1)
    for _ in range(KILLS):
        with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
            assert process.stderr is not None
            # At a random moment after the first epoch, which may be while a checkpoint is written.
            said = next(line for line in process.stderr if ": epoch " in line)
            time.sleep(delays.uniform(0, epoch))
            process.kill()
        assert "loss" in said
    subprocess.run(command, check=True, capture_output=True)
    one, other = Checkpoint.read(expected.latest), Checkpoint.read(found.latest)
    assert other.complete
    for name, tensor in one.network.items():
        assert torch.equal(tensor, other.network[name]), name
    losses = [json.loads(line)["loss"] for line in found.history.read_text(encoding="utf-8").splitlines()]
    assert losses == [line["loss"] for line in history]
    # Files that were being written had hidden names and were removed by the last run; the others are complete.
    assert not list(found.root.glob(".*"))
    assert Checkpoint.read(found.best).network.keys() == one.network.keys()
