"""The memory of a training step, computed by running it where tensors have shapes but no content."""

import math

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.overrides import TorchFunctionMode

from autocrossdim.networks.build import build_network
from autocrossdim.networks.plan import NetworkPlan

OPTIMISER_STATES = 2  # NAdam keeps two moments a parameter


class _LargestTensors(TorchFunctionMode):
    """Notes the largest result of any single operation: the size of what comes and goes beside the saved ones."""

    largest = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.nbytes)
        return result


class StepMemory:
    """Bytes of one training step of a network, by patch and batch. Milliseconds, no memory, no GPU needed.

    The network is built once on the `meta` device. Activations are exactly proportional to the batch, so they
    are computed for one sample and multiplied.
    """

    def __init__(self, plan: NetworkPlan) -> None:
        self.plan = plan
        with torch.device("meta"):
            self.network = build_network(plan, None).train()
        parameters = sum(p.nbytes for p in self.network.parameters())
        buffers = sum(b.nbytes for b in self.network.buffers())
        self.fixed_bytes = parameters * (2 + OPTIMISER_STATES) + buffers

    def bytes(self, patch: tuple[int, ...], batch: int) -> int:
        """Return the peak bytes of forward, backward and update.

        Args:
            patch: voxels an axis.
            batch: patches a step.
        """
        # Two samples: batch norm refuses to train on one value a channel.
        samples = 2
        image = torch.empty(samples, self.plan.in_channels, *patch, device="meta")
        parameters = {p.untyped_storage()._cdata for p in self.network.parameters()}
        saved: dict[int, Tensor] = {}

        def keep(tensor: Tensor) -> Tensor:
            if tensor.untyped_storage()._cdata not in parameters:
                saved[tensor.untyped_storage()._cdata] = tensor
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor), _LargestTensors() as transient:
            outputs = self.network(image)
            outputs = outputs if isinstance(outputs, Tensor) else outputs[0]
            # The loss keeps log-probabilities, probabilities and a one-hot target of the outputs' size.
            loss_bytes = 3 * outputs.nbytes
        activations = sum(tensor.untyped_storage().nbytes() for tensor in saved.values()) + loss_bytes
        # In backward, the gradients of an operation's input and output exist at once.
        per_sample = (activations + 2 * transient.largest) / samples
        return int(self.fixed_bytes + math.ceil(per_sample * batch))
