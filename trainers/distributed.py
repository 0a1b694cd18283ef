"""Sums and batch-norm statistics over all processes that train a network together."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def summed(value: Tensor) -> Tensor:
    """Return the sum over all processes, with gradients; `value` itself if there is one process."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return value
    return _Sum.apply(value)  # type: ignore[no-any-return]


@torch.no_grad()
def averaged(value: Tensor) -> Tensor:
    """Return the mean over all processes, without gradients; `value` itself if there is one process.

    A sum over the voxels of a process, divided by their mean number in all processes, gives the mean over all voxels
    when gradients are averaged: processes may have different numbers of patches and of ignored voxels.
    """
    return value if (total := summed(value)) is value else total / dist.get_world_size()


class _Sum(torch.autograd.Function):
    """Sum over all processes; the gradient of every summand is the sum of the gradients of all processes."""

    @staticmethod
    def forward(context: Any, value: Tensor) -> Tensor:
        return _sum(value)

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> Tensor:
        return _sum(gradient)


def _sum(value: Tensor) -> Tensor:
    total = value.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


class SyncedBatchNorm(TorchFunctionMode):
    """Context in which batch norm in training computes its statistics over the samples of all processes.

    torch's SyncBatchNorm runs on GPUs only, and does not replace timm's layers nor their 3D counterparts.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one function; batch norm with the statistics of all processes."""
        kwargs = kwargs or {}
        if func is functional.batch_norm:
            named = dict(
                zip(("input", "running_mean", "running_var", "weight", "bias", "training"), args, strict=False)
            )
            given = {**named, **kwargs}
            if given.get("training"):
                return _batch_norm(**given)
        return func(*args, **kwargs)


def _batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Compute `torch.nn.functional.batch_norm` in training mode over all processes."""
    axes = [0, *range(2, input.ndim)]
    x = input.float()
    own = torch.cat([x.sum(axes), x.square().sum(axes), x.new_full((1,), x.numel() / x.shape[1])])
    total = summed(own)
    count = total[-1]
    mean, square = (total[:-1] / count).chunk(2)
    variance = (square - mean.square()).clamp(min=0)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean), momentum)
            running_var.lerp_((variance * count / (count - 1)).to(running_var), momentum)
    shape = (1, -1, *[1] * (input.ndim - 2))
    scale = torch.rsqrt(variance + eps) * (1 if weight is None else weight.float())
    shift = (0 if bias is None else bias.float()) - mean * scale
    return (x * scale.view(shape) + shift.view(shape)).to(input.dtype)
