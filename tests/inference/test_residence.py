"""Networks that take turns on a device compute what they compute when they stay; no GPU is needed to see it."""

import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autocrossdim.inference import residence
from autocrossdim.inference.residence import settle

CPU = torch.device("cpu")


class Travelling(nn.Conv2d):
    """Notes where it is sent."""

    def __init__(self) -> None:
        super().__init__(1, 1, 3)
        self.sent: list[str] = []

    def to(self, *where: Any, **how: Any) -> "Travelling":
        if where:
            self.sent.append(str(where[0]))
        return super().to(*where, **how)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Say how many bytes are free on any device."""
    return lambda free: monkeypatch.setattr(residence, "room_on", lambda device: free)


def test_what_fits_stays(room: Callable[[float], None]) -> None:
    room(1000)
    network = Travelling()
    settled = settle(network, CPU, torch.channels_last, 1000 - 4 * 10)
    settled(torch.zeros(1, 1, 5, 5))
    settled(torch.zeros(1, 1, 5, 5))
    assert network.sent == ["cpu"]


def test_what_does_not_fit_comes_for_each_call_and_computes_the_same(room: Callable[[float], None]) -> None:
    room(1000)
    image = torch.randn(1, 1, 5, 5)
    network = Travelling()
    expected = nn.Conv2d.forward(network, image)
    settled = settle(network, torch.device("cpu:0"), torch.channels_last, 1000 - 4 * 10 + 1)
    assert network.sent == []
    torch.testing.assert_close(settled(image), expected)
    settled(image)
    assert network.sent == ["cpu:0", "cpu", "cpu:0", "cpu"]


def test_it_leaves_also_when_it_fails(room: Callable[[float], None]) -> None:
    room(0)
    network = Travelling()
    settled = settle(network, CPU, torch.channels_last, 1)
    for _ in range(2):  # a lock that was kept would stop the second call for ever
        with pytest.raises(RuntimeError):
            settled(torch.zeros(1, 9, 5, 5))
    assert network.sent == ["cpu"] * 4


def test_threads_wait_for_each_other(room: Callable[[float], None]) -> None:
    room(0)
    inside: list[int] = []

    class Slow(Travelling):
        def forward(self, x: Tensor) -> Tensor:
            inside.append(len(self.sent) % 2)  # odd: it has come and not gone
            threading.Event().wait(0.02)
            return super().forward(x)

    settled = settle(Slow(), CPU, torch.channels_last, 1)
    threads = [threading.Thread(target=settled, args=(torch.zeros(1, 1, 5, 5),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert inside == [1] * 4
