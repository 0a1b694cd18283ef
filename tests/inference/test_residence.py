"""Networks that are moved to a device for each call give the same results as those that stay; tested without a GPU."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autocrossdim.inference import residence
from autocrossdim.inference.model import Model
from autocrossdim.inference.predictor import Predictor
from autocrossdim.inference.residence import HELD_BYTES, HELD_SHARE, Visiting, place, room_for_logits, settle
from autocrossdim.networks.build import build_network
from autocrossdim.records.checkpoint import Checkpoint

CPU = torch.device("cpu")
BYTES = 4 * 10  # of Moving


class Moving(nn.Conv2d):
    """Logs the devices to which it is moved."""

    def __init__(self) -> None:
        super().__init__(1, 1, 3)
        self.sent: list[str] = []

    def to(self, *where: Any, **how: Any) -> "Moving":
        self.sent.append(str(where[0]))
        return super().to(*where, **how)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Set the number of free bytes on any device, of which a quarter is reserved for logits, and not at least 2 GB."""
    monkeypatch.setattr(residence, "_reserved", lambda device: HELD_SHARE * residence.free_memory(device))
    return lambda free: monkeypatch.setattr(residence, "free_memory", lambda device: free)


def test_a_network_that_fits_stays_on_the_device(room: Callable[[float], None]) -> None:
    room(1000)
    network = Moving()
    assert settle(network, CPU, 750 - BYTES) is network  # a quarter is for logits
    network(torch.zeros(1, 1, 5, 5))
    assert network.sent == ["cpu"]


def test_a_network_that_does_not_fit_is_moved_for_each_call(
    room: Callable[[float], None],
) -> None:
    room(1000)
    image = torch.randn(1, 1, 5, 5)
    network = Moving()
    expected = nn.Conv2d.forward(network, image)
    visiting = settle(network, torch.device("cpu:0"), 750 - BYTES + 1)
    assert network.sent == []
    with torch.inference_mode():
        torch.testing.assert_close(visiting(image), expected)
        visiting(image)
    assert network.sent == ["cpu:0", "cpu", "cpu:0", "cpu"]


def test_logits_may_take_a_quarter_of_the_free_memory_of_a_gpu(room: Callable[[float], None]) -> None:
    room(80e9)
    assert room_for_logits(torch.device("cuda")) == 20e9
    room(0)
    assert room_for_logits(torch.device("cuda")) > 0
    room(float("inf"))
    assert room_for_logits(CPU) == HELD_BYTES


def test_an_image_is_placed_on_the_device_unless_it_would_fill_it(room: Callable[[float], None]) -> None:
    image, gpu, tiles = np.zeros((1, 5, 5, 10), np.float32), torch.device("meta"), 500
    room((1000 * 2 + tiles) / (1 - HELD_SHARE))
    assert place(image, gpu, size=1000, inference_bytes=tiles).device == gpu
    assert place(image, gpu, size=1001, inference_bytes=tiles).device == CPU
    assert place(image, gpu, size=1000, inference_bytes=tiles + 1).device == CPU
    room(float("inf"))
    assert place(image, CPU, size=1000, inference_bytes=tiles).data_ptr() == image.ctypes.data, (
        "nothing is copied on a CPU"
    )


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_it_is_moved_back_after_an_error_or_ctrl_c(error: type[BaseException]) -> None:
    class Failing(Moving):
        def forward(self, x: Tensor) -> Tensor:
            raise error

    network = Failing()
    visiting = Visiting(network, CPU)
    for _ in range(2):  # the second call would hang if the lock were kept
        with pytest.raises(error):
            visiting(torch.zeros(1, 1, 5, 5))
    assert network.sent == ["cpu"] * 4


def test_threads_take_turns() -> None:
    inside: list[int] = []

    class Slow(Moving):
        def forward(self, x: Tensor) -> Tensor:
            inside.append(len(self.sent) % 2)  # odd while it is on the device
            threading.Event().wait(0.02)
            return super().forward(x)

    visiting = Visiting(Slow(), CPU)
    threads = [threading.Thread(target=visiting, args=(torch.zeros(1, 1, 5, 5),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert inside == [1] * 4


def test_a_model_without_room_on_the_device_gives_the_same_segmentation(
    room: Callable[[float], None], make_plan: Callable[..., Any]
) -> None:
    plan = make_plan()
    configuration = plan.configuration()
    folds = []
    for fold in range(2):
        torch.manual_seed(fold)
        network = build_network(plan.network_plan(configuration), None)
        done = {"complete": True, "epoch": 1}
        folds.append((Path(f"fold_{fold}"), Checkpoint(plan, "dx", fold, {}, network.state_dict(), {}, {}, done)))
    image, spacing = np.random.default_rng(0).normal(size=(1, 18, 20, 18)).astype(np.float32), (1.0, 1.0, 1.0)
    found = []
    for free in (float("inf"), configuration.memory.inference_bytes / (1 - HELD_SHARE)):
        room(free)
        predictor = Predictor([Model.of(folds, CPU)], mirroring=False)
        visiting = [isinstance(network, Visiting) for network in predictor.models[0].networks]
        assert visiting == [free != float("inf")] * 2
        assert any("has no room for 2 of 2 networks" in note for note in predictor.notes) == all(visiting)
        found.append(predictor(image, spacing=spacing, uncertainty=True))
    np.testing.assert_array_equal(found[0].label, found[1].label)
    assert len(np.unique(found[0].label)) > 1
