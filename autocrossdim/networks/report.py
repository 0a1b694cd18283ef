"""Where a network's values came from, tensor by tensor."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Status = Literal["matched", "adapted", "new"]


@dataclass(frozen=True)
class LoadReport:
    """Where a network's values came from; as a dict (`dataclasses.asdict`) it is kept in the checkpoint.

    Attributes:
        source: File, full timm name or model, with tag and licence if they are known.
        layers: Name of every tensor of the network, its status (`matched`, `adapted` or `new`), and why or how.
        parameters: Number of trainable parameters by status.
        tensors: Number of trainable tensors by status.
        unused: Names of tensors of the source that the network does not have.
    """

    source: str
    layers: list[tuple[str, Status, str]]
    parameters: dict[str, int]
    tensors: dict[str, int]
    unused: list[str]

    def __str__(self) -> str:
        new = f"{self.parameters['new']:,} new"
        loaded = self.parameters["matched"] + self.parameters["adapted"]
        if not loaded:
            return f"{new} parameters (randomly initialised)"
        tensors = self.tensors["matched"] + self.tensors["adapted"]
        parts = [f"{loaded:,} parameters in {tensors:,} tensors from {self.source}"]
        hows = Counter(part for _, status, why in self.layers if status == "adapted" for part in why.split(", "))
        kernels = Counter[str]()
        for how, count in hows.items():
            kind, _, rest = how.partition(" ")
            if kind == "channels":
                parts.append(f"stem adapted {rest} channels")
            else:
                kernels[rest.rpartition(" ")[2]] += count
        parts += [f"{count} kernels fitted by {mode}" for mode, count in kernels.items()]
        text = ", ".join(parts)
        if self.unused:
            text += f" ({len(self.unused)} tensors of the source not used)"
        return f"{text}; {new}"
