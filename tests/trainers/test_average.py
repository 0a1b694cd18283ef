import pytest
import torch

from autocrossdim.networks.build import build_network
from autocrossdim.records.network import NetworkPlan
from trainers.average import Average, gamma_of

PLAN = NetworkPlan(
    dims=2, encoder="resnet18", in_channels=1, num_outputs=2, strides=[[2, 2]], kernel_sizes=[[3, 3], [3, 3]]
)


@pytest.mark.parametrize("width", [0.05, 0.1, 0.2])
def test_the_profile_has_the_requested_width(width: float) -> None:
    gamma = gamma_of(width)
    age = torch.linspace(0, 1, 200_001, dtype=torch.float64)
    profile = age**gamma / (age**gamma).sum()
    mean = (profile * age).sum()
    assert ((profile * (age - mean) ** 2).sum()).sqrt().item() == pytest.approx(width, rel=1e-3)


def test_constant_weights_are_their_own_average_from_the_first_update_on() -> None:
    network = build_network(PLAN, None)
    average = Average(network, 0.05)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(3.0)
    for step in range(1, 5):
        average.update(network, step)
    assert all(torch.allclose(p, torch.tensor(3.0)) for p in average.network.parameters())


def test_batch_norm_statistics_are_averaged_and_counters_copied() -> None:
    network = build_network(PLAN, None)
    average = Average(network, 0.2)
    network.train()
    for step in range(1, 4):
        network(torch.randn(2, 1, 16, 16))
        average.update(network, step)
    averaged, newest = average.network.state_dict(), network.state_dict()
    assert averaged["pre.norm.num_batches_tracked"] == 3
    assert not torch.equal(averaged["pre.norm.running_var"], newest["pre.norm.running_var"])
    assert not average.network.training


def test_weights_that_were_loaded_are_averaged_too() -> None:
    network, other = build_network(PLAN, None), build_network(PLAN, None)
    average = Average(network, 0.05)
    average.update(network, 1)
    network.load_state_dict(other.state_dict())
    average.network.load_state_dict(other.state_dict())
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, 2.0)
    average.update(network, 1)  # the first step counts alone
    assert all((parameter == 2).all() for parameter in average.network.parameters())
