"""Memory of a training step, computed by running exactly this step on tensors that have shapes but no data.

Network, loss and optimiser live on torch's `meta` device. The bytes of every storage are counted as long as it is
alive, so the peak includes activations saved for the backward pass, gradients, and temporary tensors. This takes a
few seconds at most, hardly any memory and no GPU: a laptop can plan for an 80 GB card.
"""

import weakref
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import FlopCounterMode

from autocrossdim.networks.base import SegmentationNetwork
from autocrossdim.networks.build import build_network
from autocrossdim.records.network import NetworkPlan
from autocrossdim.system.device import memory_format_for
from trainers.step import make_loss, make_optimizer, training_step

COPIES = 2  # of the weights: those being trained and their running average
OPTIMISER_STATES = 2  # NAdam keeps two moments per parameter
# Convolution workspaces and fragmentation by the bits of the convolutions. In 32 bits, a process on a CPU took 10 to
# 22 % more than its tensors, over ten networks (benchmarks/results/memory.md). In 16 bits, the memory allocated on an
# H200 was 1 % less to 7 % more, and 23 % more for one small patch; this does not include fragmentation
# (benchmarks/results/gpu.md).
OVERHEAD = {32: 1.16, 16: 1.07}
# Peaks are computed for these batch sizes and extrapolated linearly: everything except the weights' gradients is
# proportional to the batch size.
FEW, MORE = 2, 4


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the storages that operations have created and that are still alive.

    Args:
        existing: Tensors that exist already and are not counted when an operation changes them in place.
    """

    def __init__(self, existing: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._existing = {tensor.untyped_storage()._cdata for tensor in existing}
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one operation and count the storages it created."""
        result = func(*args, **(kwargs or {}))
        for value in tree_iter(result):
            if isinstance(value, Tensor):
                self._count(value.untyped_storage())
        return result

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive or key in self._existing:
            return
        self.now += size
        self.peak = max(self.peak, self.now)

        def forget(_: object) -> None:
            del self._alive[key]
            self.now -= size

        self._alive[key] = weakref.ref(storage, forget)


class _SixteenBitConvolutions(TorchFunctionMode):
    """Runs convolutions in bf16, as autocast does, on a device without autocast."""

    CONVOLUTIONS = (torch.conv2d, torch.conv3d, torch.conv_transpose2d, torch.conv_transpose3d)

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one function; if it is a convolution, with its inputs and weights in bf16."""
        if func in self.CONVOLUTIONS:
            args = tuple(value.bfloat16() if isinstance(value, Tensor) else value for value in args)
        return func(*args, **(kwargs or {}))


class StepMemory:
    """Memory of training and inference with one network, for any patch and batch size.

    Args:
        plan: Network to build.
        mixed: Whether convolutions run in 16 bits (bf16 or fp16 autocast), as they do on a GPU.
        regions: Whether outputs are regions, which may overlap, rather than exclusive classes.
    """

    def __init__(self, plan: NetworkPlan, *, mixed: bool, regions: bool = False) -> None:
        self.plan = plan
        self.mixed = mixed
        self.overhead = OVERHEAD[16 if mixed else 32]
        self.regions = regions
        with torch.device("meta"):
            self.network: SegmentationNetwork = build_network(plan, None).to(memory_format=memory_format_for(plan.dims))
        self.optimizer = make_optimizer(self.network, learning_rate=1e-3)
        self.loss = make_loss(regions=regions)
        parameters = sum(p.nbytes for p in self.network.parameters())
        buffers = sum(b.nbytes for b in self.network.buffers())
        self.model_bytes = parameters + buffers
        self.fixed_bytes = COPIES * self.model_bytes + OPTIMISER_STATES * parameters
        self.training_peak = lru_cache(maxsize=256)(self._training_peak)

    def training(self, patch: tuple[int, ...], batch: int) -> int:
        """Return the peak memory of a training step in bytes.

        It includes the weights, their average, the optimiser's moments, the batch, forward and backward pass, and on a
        GPU the next batch, which is copied there during the step.

        Args:
            patch: Patch size in voxels.
            batch: Patches per step, at least 2.
        """
        peak: float = self.training_peak(patch, FEW)
        if batch != FEW:
            peak += (self.training_peak(patch, MORE) - peak) * (batch - FEW) / (MORE - FEW)
        ahead = sum(tensor.nbytes for tensor in self._batch(patch, batch)) if self.mixed else 0
        return int(self.fixed_bytes + ahead + self.overhead * peak)

    def inference(self, patch: tuple[int, ...], batch: int) -> int:
        """Return the peak memory in bytes of predicting `batch` tiles at once, without accumulators."""
        with torch.no_grad(), _LiveBytes() as live, self._precision():
            self.network.eval()(self._image(patch, batch))
        return int(self.model_bytes + self.overhead * live.peak)

    def multiply_adds(self, patch: tuple[int, ...]) -> int:
        """Return the multiply-adds of predicting one patch."""
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            self.network.eval()(self._image(patch, 1))
        return int(counter.get_total_flops() // 2)

    def _image(self, patch: tuple[int, ...], batch: int) -> Tensor:
        image = torch.empty(batch, self.plan.in_channels, *patch, device="meta")
        return image.contiguous(memory_format=memory_format_for(self.plan.dims))

    def _precision(self) -> AbstractContextManager[Any]:
        return _SixteenBitConvolutions() if self.mixed else nullcontext()

    def _training_peak(self, patch: tuple[int, ...], batch: int) -> int:
        if not self.optimizer.state:
            self._create_moments()
        moments = (value for state in self.optimizer.state.values() for value in state.values())
        existing = (*self.network.parameters(), *self.network.buffers(), *moments)
        with _LiveBytes(existing) as live:
            self._step(patch, batch)
        return int(live.peak)

    def _create_moments(self) -> None:
        """Create the optimiser's moments, which `fixed_bytes` contains, by a step without forward and backward pass."""
        for parameter in self.network.parameters():
            parameter.grad = torch.empty_like(parameter)
        self.optimizer.step()
        self.network.zero_grad(set_to_none=True)

    def _step(self, patch: tuple[int, ...], batch: int) -> None:
        with self._precision():
            training_step(self.network.train(), self.loss, self.optimizer, [self._batch(patch, batch)])
        self.network.zero_grad(set_to_none=True)

    def _batch(self, patch: tuple[int, ...], batch: int) -> tuple[Tensor, Tensor]:
        """Return the data and target of a training step, without values."""
        target_shape = (batch, self.plan.num_outputs, *patch) if self.regions else (batch, *patch)
        return self._image(patch, batch), torch.empty(target_shape, dtype=torch.int64, device="meta")


def step_memory(plan: NetworkPlan, *, mixed: bool, regions: bool) -> StepMemory:
    """Return the memory of training and inference with a network; what was computed for it before is kept."""
    return _step_memory(plan.model_dump_json(), mixed, regions)


@lru_cache(maxsize=64)
def _step_memory(plan: str, mixed: bool, regions: bool) -> StepMemory:
    return StepMemory(NetworkPlan.model_validate_json(plan), mixed=mixed, regions=regions)
