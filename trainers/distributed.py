"""Several processes that train one network: sums, and batch norm's statistics, over all of them."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional
from torch.overrides import TorchFunctionMode


def summed(value: Tensor) -> Tensor:
    """Sum over all processes, with gradients; `value` itself where there is one process."""
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return value
    return all_reduce(value.contiguous())  # type: ignore[no-any-return, no-untyped-call]


class SyncedBatchNorm(TorchFunctionMode):
    """While it is entered, batch norm in training takes its statistics over the samples of all processes.

    torch's own SyncBatchNorm runs on GPUs only, and knows neither timm's layers nor their 3D twins.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run one function, batch norm with statistics of its own."""
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
    """As `torch.nn.functional.batch_norm` in training, over all processes."""
    axes = [0, *range(2, input.ndim)]
    x = input.float()
    own = torch.cat([x.sum(axes), x.square().sum(axes), x.new_tensor([x.numel() / x.shape[1]])])
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
