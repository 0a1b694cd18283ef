"""The machine and the program versions with which a fold was trained, and the days on which that happened."""

from collections.abc import Sequence
from datetime import date, datetime
from importlib.metadata import version
from typing import Self

from pydantic import BaseModel, ConfigDict, PositiveInt


class Environment(BaseModel):
    """Where and when a fold was trained. Nothing in it names a person, a computer or a directory.

    Attributes:
        device: Name of the GPU, or of the processor.
        devices: Number of devices that trained the fold together.
        precision: Precision of the convolutions: bf16, fp16 or fp32.
        autocrossdim: Version of this program.
        torch: Version of PyTorch.
        first_day: Day on which training was started or resumed there, local time.
        last_day: Day of its last checkpoint.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    devices: PositiveInt
    precision: str
    autocrossdim: str
    torch: str
    first_day: date
    last_day: date

    @classmethod
    def now(cls, device: str, *, devices: int, precision: str) -> Self:
        """Return the environment of this process, today."""
        today = datetime.now().astimezone().date()
        return cls(
            device=device,
            devices=devices,
            precision=precision,
            autocrossdim=version("autocrossdim"),
            torch=version("torch"),
            first_day=today,
            last_day=today,
        )


def extended(known: Sequence[Environment], now: Environment) -> list[Environment]:
    """Return the environments of a fold after training went on in `now`.

    Only a change of device or version adds one, so a run that was interrupted records the same as one that was not.
    """
    if known:
        last = known[-1]
        if last.model_copy(update={"first_day": now.first_day, "last_day": now.last_day}) == now:
            return [*known[:-1], last.model_copy(update={"last_day": now.last_day})]
    return [*known, now]
