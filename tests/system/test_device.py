"""Devices that this machine lacks, played by fakes: what is asked of torch, and what is concluded."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autocrossdim.system.device import (
    BACKENDS,
    CPU,
    autocast_for,
    choose_device,
    free_memory,
    gpus,
    name_of,
    precision_for,
    require_training,
    send,
    total_memory,
)
from autocrossdim.system.errors import UserError

GIGABYTE = 1024**3


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretend that there are GPUs: `install("cuda", 2, capability=(7, 5), hip="6.0")`."""

    def play(kind: str, number: int, *, capability: tuple[int, int] = (9, 0), hip: str | None = None) -> None:
        replies: dict[str, Any] = {"is_available": number > 0, "device_count": number}
        if kind != "mps":
            replies["get_device_name"] = f"Fake {kind}"
            replies["get_device_properties"] = SimpleNamespace(total_memory=24 * GIGABYTE)
            replies["mem_get_info"] = (5 * GIGABYTE, 24 * GIGABYTE)
            replies["memory_reserved"], replies["memory_allocated"] = 12 * GIGABYTE, 3 * GIGABYTE
        if kind == "cuda":
            replies["get_device_capability"] = capability
            monkeypatch.setattr(torch.version, "hip", hip)
        for name, reply in replies.items():
            monkeypatch.setattr(torch.get_device_module(kind), name, lambda *_, reply=reply: reply, raising=False)

    for kind in ("cuda", "xpu", "mps"):
        play(kind, 0)
    return play


def test_auto_is_a_cuda_gpu_or_the_cpu(install: Any) -> None:
    assert choose_device("auto") == CPU
    install("mps", 1)
    install("xpu", 1)
    assert choose_device("auto") == CPU
    install("cuda", 1)
    assert choose_device("auto") == torch.device("cuda")


@pytest.mark.parametrize("kind", ["cuda", "xpu", "mps"])
def test_a_gpu_is_chosen_by_its_type_if_there_is_one(kind: str, install: Any) -> None:
    with pytest.raises(UserError, match=f"--device {kind}: no such GPU"):
        choose_device(kind)
    install(kind, 1)
    assert choose_device(kind).type == kind
    with pytest.raises(UserError, match=f"--device {kind}:1: no such GPU"):
        choose_device(f"{kind}:1")
    assert [device.type for device in gpus()] == [kind]


@pytest.mark.parametrize("name", ["gpu", "meta"])
def test_an_unknown_device_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(UserError, match=f"--device {name}: .*use auto, cpu, cuda, xpu, mps"):
        choose_device(name)


@pytest.mark.parametrize(
    ("kind", "fake", "precision"),
    [
        ("cuda", {"capability": (8, 0)}, "bf16-mixed"),
        ("cuda", {"capability": (7, 5)}, "16-mixed"),  # a T4 emulates bf16
        ("cuda", {"capability": (7, 5), "hip": "6.2"}, "bf16-mixed"),
        ("xpu", {}, "bf16-mixed"),
        ("mps", {}, "32-true"),
        ("cpu", None, "32-true"),
    ],
)
def test_training_is_in_the_fastest_safe_precision(kind: str, fake: Any, precision: str, install: Any) -> None:
    if fake is not None:
        install(kind, 1, **fake)
    assert precision_for(torch.device(kind)) == precision


def test_prediction_is_in_the_precision_of_training(install: Any) -> None:
    install("xpu", 1)
    with autocast_for(torch.device("xpu")):
        assert torch.is_autocast_enabled("xpu")
        assert torch.get_autocast_dtype("xpu") == torch.bfloat16
    with autocast_for(CPU):
        assert not torch.is_autocast_enabled("cpu")


def test_memory_is_known_where_the_gpu_has_its_own(install: Any) -> None:
    for kind in ("cuda", "xpu"):
        install(kind, 1)
        device = torch.device(kind, 0)
        # 5 GB are free, and torch keeps 9 GB that it can use again. After training, validation needs them.
        assert (total_memory(device), free_memory(device)) == (24 * GIGABYTE, 14 * GIGABYTE)
        assert name_of(device) == f"Fake {kind}"
    for device in (CPU, torch.device("mps")):
        assert (total_memory(device), free_memory(device)) == (None, float("inf"))
    assert name_of(torch.device("mps")) == BACKENDS["mps"].title


def test_the_processor_is_named_where_the_system_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "processor : 0\nmodel name\t: Fast  CPU @ 3 GHz\n")
    assert name_of(CPU) == "Fast CPU @ 3 GHz"
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: "")
    monkeypatch.setattr("platform.processor", lambda: "")
    assert name_of(CPU) == "CPU"


@pytest.mark.parametrize(("kind", "pinned"), [("cuda", True), ("xpu", True), ("mps", False)])
def test_copies_are_not_waited_for_where_the_device_allows_that(
    kind: str, pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: calls.append("pinned") or self)
    monkeypatch.setattr(torch.Tensor, "to", lambda self, device, **how: calls.append(how) or self)
    send(torch.zeros(2), torch.device(kind))
    assert calls == (["pinned", {"non_blocking": True}] if pinned else [{}])


def test_a_device_without_support_in_fabric_is_refused_before_training() -> None:
    require_training(torch.device("mps"))
    with pytest.raises(UserError, match="--device xpu: lightning-fabric cannot train on an Intel GPU"):
        require_training(torch.device("xpu"))
