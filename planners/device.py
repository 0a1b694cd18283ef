"""The memory and the precision to plan for."""

from typing import Literal

from autocrossdim.records.plan import DEFAULT_MEMORY_GB, GIGABYTE
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.system.device import BACKENDS, choose_device, name_of, total_memory

GPU_SHARE = 0.9  # of the GPU's memory; the rest is left to CUDA, its libraries and fragmentation (our choice)


def memory_budget(options: PlanOptions) -> tuple[int, str]:
    """Return the bytes that training may take, and a sentence that says where the number comes from.

    The budget is `--memory` if given, else 90 % of the first GPU's memory, else 8 GB.
    """
    if options.memory is not None:
        return int(options.memory * GIGABYTE), f"The memory budget is {options.memory:g} GB, as requested."
    device = choose_device("auto")
    total = total_memory(device)
    if total is not None:
        return int(GPU_SHARE * total), (
            f"The memory budget is {GPU_SHARE * total / GIGABYTE:.3g} GB, {GPU_SHARE:.0%} of the memory of the GPU "
            f"({name_of(device)})."
        )
    return int(DEFAULT_MEMORY_GB * GIGABYTE), (
        f"No GPU was found; the memory budget is {DEFAULT_MEMORY_GB:g} GB. Set another one with --memory."
    )


def precision_bits(options: PlanOptions) -> Literal[16, 32]:
    """Return the bits of the convolutions: `--precision` if given, else 16 on a GPU and 32 on a CPU."""
    if options.precision == "auto":
        return 16 if BACKENDS[choose_device("auto").type].half else 32
    return 16 if options.precision == "16" else 32
