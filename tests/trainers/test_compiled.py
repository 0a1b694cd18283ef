from contextlib import contextmanager
from typing import Any

import pytest
import torch

from autocrossdim.networks.build import build_network
from autocrossdim.records.network import NetworkPlan
from trainers.compiled import can_be_compiled

PLAN = NetworkPlan(dims=2, in_channels=1, num_outputs=2, strides=[[2, 2]] * 2, kernel_sizes=[[3, 3]] * 3)


def test_compilation_is_tried_on_the_device_and_in_the_precision_of_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network is still on the CPU at that time, which has another compiler than a GPU."""
    seen: list[Any] = []

    @contextmanager
    def autocast() -> Any:
        seen.append("autocast")
        yield

    monkeypatch.setattr(torch.nn.Module, "compile", lambda network: seen.append(next(network.parameters()).device.type))
    network = build_network(PLAN, None)
    assert can_be_compiled(network, (2, 1, 32, 32), device=torch.device("meta"), autocast=autocast)
    assert seen == ["meta", "autocast"]
    assert next(network.parameters()).device.type == "cpu"
