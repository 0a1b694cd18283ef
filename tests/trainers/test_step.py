import copy

import pytest
import torch
from lightning_fabric import Fabric

from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.build import build_network
from autocrossdim.records.network import NetworkPlan
from trainers.loss import DiceCrossEntropy
from trainers.step import OneDevice, load_optimizer, make_loss, make_optimizer, set_learning_rate, training_step

Batches = list[tuple[torch.Tensor, torch.Tensor]]


@pytest.fixture
def network() -> SegmentationNetwork:
    torch.manual_seed(0)
    plan = NetworkPlan(
        dims=2, encoder="resnet18", in_channels=1, num_outputs=2, strides=[[2, 2]], kernel_sizes=[[3, 3], [3, 3]]
    )
    return build_network(plan, None).train()


def batches(count: int) -> Batches:
    random = torch.Generator().manual_seed(1)
    return [
        (torch.randn(2, 1, 16, 16, generator=random), torch.randint(2, (2, 16, 16), generator=random))
        for _ in range(count)
    ]


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_a_step_is_forward_loss_backward_clipping_and_optimiser(network: SegmentationNetwork) -> None:
    by_hand = copy.deepcopy(network)
    ((data, target),) = batches(1)
    loss = training_step(
        network, make_loss(regions=False), make_optimizer(network, learning_rate=0.01), [(data, target)]
    )
    optimizer = make_optimizer(by_hand, learning_rate=0.01)
    expected = DiceCrossEntropy(regions=False)(by_hand(data), target)
    expected.backward()
    torch.nn.utils.clip_grad_norm_(by_hand.parameters(), 12.0)
    optimizer.step()
    assert torch.equal(loss, expected.detach()[None])
    assert torch.equal(weights(network), weights(by_hand))


def test_one_device_gives_what_fabric_gives(network: SegmentationNetwork) -> None:
    fabric = Fabric(accelerator="cpu", devices=1)
    twin = copy.deepcopy(network)
    model, optimizer = fabric.setup(twin, make_optimizer(twin, learning_rate=0.01))
    loss = make_loss(regions=False)
    training_step(network, loss, make_optimizer(network, learning_rate=0.01), batches(2), engine=OneDevice())
    training_step(model, loss, optimizer, batches(2), engine=fabric)
    assert torch.equal(weights(network), weights(twin))


def test_the_gradients_of_several_batches_are_averaged(network: SegmentationNetwork) -> None:
    network.eval()  # batch norm would see other statistics in each batch
    separate = []
    for batch in batches(2):
        training_step(network, make_loss(regions=False), torch.optim.SGD(network.parameters(), lr=0.0), [batch])
        separate.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
    training_step(network, make_loss(regions=False), torch.optim.SGD(network.parameters(), lr=0.0), batches(2))
    together = torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
    torch.testing.assert_close(together, (separate[0] + separate[1]) / 2, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_clipped(network: SegmentationNetwork) -> None:
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    before = weights(network)
    training_step(network, make_loss(regions=False), optimizer, batches(1), gradient_clip=1e-3)
    assert (weights(network) - before).norm().item() == pytest.approx(1e-3, rel=1e-2)


@pytest.mark.parametrize("lookahead", [0, 2])
def test_the_encoder_has_a_learning_rate_of_its_own(network: SegmentationNetwork, lookahead: int) -> None:
    optimizer = make_optimizer(network, learning_rate=1.0, encoder_factor=0.1, lookahead=lookahead)
    set_learning_rate(optimizer, 0.01)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.01])


def test_a_resumed_optimiser_keeps_on_the_cpu_what_a_step_reads_there(network: SegmentationNetwork) -> None:
    optimizer = make_optimizer(network, learning_rate=0.01, lookahead=2)
    training_step(network, make_loss(regions=False), optimizer, batches(1))
    saved = optimizer.state_dict()
    elsewhere = copy.deepcopy(network).to("meta")
    resumed = make_optimizer(elsewhere, learning_rate=0.01, lookahead=2)
    load_optimizer(resumed, saved)
    for number, state in resumed.state_dict()["state"].items():
        assert torch.equal(state["mu_product"], saved["state"][number]["mu_product"])
        assert state["exp_avg"].device.type == "meta"


def test_a_step_runs_on_tensors_without_content() -> None:
    plan = NetworkPlan(dims=2, in_channels=1, num_outputs=2, strides=[[2, 2]] * 2, kernel_sizes=[[3, 3]] * 3)
    with torch.device("meta"):
        network = build_network(plan, None).train()
        batch = (torch.empty(2, 1, 32, 32), torch.empty(2, 32, 32, dtype=torch.int64))
    loss = training_step(network, make_loss(regions=False), torch.optim.SGD(network.parameters(), lr=0.1), [batch])
    assert loss.device.type == "meta"
