from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from autocrossdim.records.checkpoint import Checkpoint
from tests.trainers.conftest import checkpoint_of
from trainers.learner import Learner
from trainers.run import Run
from trainers.step import set_learning_rate, training_step

pytestmark = pytest.mark.filterwarnings("ignore:The .srun. command")  # Lightning, wherever SLURM is installed


@pytest.fixture
def run(make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a run of which no case is stored, all of them completely annotated."""
    monkeypatch.setattr(Run, "class_sets", ())
    return make_run(dims=2)


def float16() -> Fabric:
    """Return a CPU in the place of a GPU that trains in float16; its loss scale doubles after two steps."""
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=2)
    return Fabric(accelerator="cpu", devices=1, plugins=MixedPrecision("16-mixed", "cpu", scaler))


def steps(learner: Learner, fabric: Fabric, count: int) -> None:
    """Train on the same patches, a block in the middle of each."""
    target = torch.zeros(2, 16, 16)
    target[:, 4:12, 4:12] = 1
    for _ in range(count):
        training_step(learner.model, learner.loss, learner.optimizer, [(target[:, None], target.long())], engine=fabric)


def saved(run: Run, learner: Learner) -> Checkpoint:
    """Return the checkpoint that the run would write now."""
    return replace(
        checkpoint_of(run),
        network=learner.evaluated.state_dict(),
        provenance=learner.provenance,
        resume=learner.resume_state(),
    )


def test_a_run_in_float16_is_resumed_with_its_loss_scale(run: Run) -> None:
    fabric = float16()
    learner = Learner(run, fabric, None)
    steps(learner, fabric, 3)
    checkpoint = saved(run, learner)
    checkpoint.write(run.folder.latest)

    again = float16()
    resumed = Learner(run, again, Checkpoint.read(run.folder.latest))
    assert resumed.resume_state()["loss_scale"] == checkpoint.resume["loss_scale"]
    steps(resumed, again, 1)  # the second step since the scale was doubled, so it is doubled again
    assert resumed.resume_state()["loss_scale"]["scale"] == 16


def test_a_checkpoint_without_a_loss_scale_is_resumed_with_a_new_one(run: Run) -> None:
    learner = Learner(run, Fabric(accelerator="cpu", devices=1), None)  # in float32, which has none
    checkpoint = saved(run, learner)
    earlier = replace(checkpoint, resume={name: checkpoint.resume[name] for name in ("network", "optimizer")})
    for former in (checkpoint, earlier):
        assert Learner(run, float16(), former).resume_state()["loss_scale"]["scale"] == 4


def test_a_trainer_may_bring_its_own_loss_and_optimiser(run: Run) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    learner = Learner(
        run,
        fabric,
        None,
        make_loss=lambda run: lambda output, target: 0 * output.sum(),
        make_optimizer=lambda run, network: torch.optim.SGD(network.parameters(), lr=run.learning_rate),
    )
    before = [parameter.detach().clone() for parameter in learner.network.parameters()]
    set_learning_rate(learner.optimizer, 0.5)
    steps(learner, fabric, 1)
    assert [group["lr"] for group in learner.optimizer.param_groups] == [0.5]
    assert all(map(torch.equal, before, learner.network.parameters()))  # the gradients of this loss are 0
