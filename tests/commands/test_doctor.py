"""What `autocrossdim doctor` says about a machine."""

from collections.abc import Callable
from importlib.metadata import version
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autocrossdim.commands.doctor import doctor


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("socket.create_connection", refuse)


def test_a_machine_without_a_gpu_and_without_network(succeed: Callable[..., str]) -> None:
    printed = succeed("doctor")
    assert f"torch {version('torch')}" in printed
    assert "CPU cores, " in printed
    assert "cannot be reached (no network). Use `--weights FILE`" in printed


def test_gpus_of_every_type_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("cuda", "mps"):
        module = torch.get_device_module(kind)
        monkeypatch.setattr(module, "is_available", lambda: True, raising=False)
        monkeypatch.setattr(module, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=16 * 1024**3))
    findings = doctor()
    assert "cuda:0: Tesla T4, 16 GB, trains in fp16" in findings
    assert "mps:0: Apple GPU, shares the memory of the CPU, trains in fp32" in findings
