"""The losses of an epoch's steps, read from the device every few steps only, because reading waits for the device."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from autocrossdim.system.errors import UserError
from trainers.distributed import summed

STEPS_BETWEEN_READS = 10  # on a GPU, which computes while the next batches are fetched


class Losses:
    """Losses that have been computed, or are being computed, and were not read yet.

    A CPU has nothing to wait for, so there, every loss is read after its step.

    Args:
        device: Device on which losses are computed.
        processes: Number of processes that train together; all of them read after the same steps.
    """

    def __init__(self, device: torch.device, processes: int) -> None:
        self.processes = processes
        self.steps_between = 1 if device.type == "cpu" else STEPS_BETWEEN_READS
        self._unread: list[tuple[int, Tensor, Sequence[str]]] = []

    def __len__(self) -> int:
        """Return the number of losses that were not read yet."""
        return len(self._unread)

    def add(self, step: int, loss: Tensor, names: Sequence[str]) -> None:
        """Add the loss of a step.

        Args:
            step: Number of the step, counted from 0.
            loss: Mean loss of the step's batches, shape ().
            names: Cases in the batches.
        """
        self._unread.append((step, loss, names))

    def is_due(self, *, stopping: bool) -> bool:
        """Return whether the losses have to be read now.

        Args:
            stopping: Whether this process was asked to stop. The others learn of it when all read the losses.
        """
        return len(self) >= self.steps_between or (stopping and self.processes == 1)

    def read(self, *, stopping: bool) -> tuple[list[float], bool]:
        """Return the unread losses, each the mean of all processes, and whether any process was asked to stop.

        Args:
            stopping: Whether this process was asked to stop.

        Raises:
            UserError: A loss is not finite.
        """
        if not self._unread:
            return [], False
        losses = torch.stack([loss for _, loss, _ in self._unread])
        both = torch.cat([losses, losses.new_full((1,), float(stopping))])
        *values, asked = (summed(both) / self.processes).tolist()
        for value, (step, _, names) in zip(values, self._unread, strict=True):
            if not math.isfinite(value):
                raise UserError(
                    f"The loss is {value} at step {step}, on the cases {', '.join(dict.fromkeys(names))}. The last "
                    "checkpoint is kept. Check these images, or lower the learning rate (--set learning_rate=...)."
                )
        self._unread.clear()
        return values, asked > 0
