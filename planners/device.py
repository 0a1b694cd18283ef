"""The memory and precision there are to plan for."""

import torch

from autocrossdim.records.plan import DEFAULT_MEMORY_GB, GIGABYTE, PlanOptions

GPU_SHARE = 0.9  # the rest is for CUDA itself, its libraries and the allocator's gaps


def memory_budget(options: PlanOptions) -> tuple[int, str]:
    """Return the bytes training may take and a sentence saying where the figure comes from.

    What was asked for, else nine tenths of the first GPU's memory, else 8 GiB.
    """
    if options.memory is not None:
        return int(options.memory * GIGABYTE), f"You gave it {options.memory:g} GB of memory."
    if torch.cuda.is_available():
        name, total = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
        return int(GPU_SHARE * total), f"It is sized for the {total / GIGABYTE:.0f} GB of your {name}."
    return (
        int(DEFAULT_MEMORY_GB * GIGABYTE),
        f"No GPU was found, so it is sized for {DEFAULT_MEMORY_GB:g} GB of memory (change it with --memory).",
    )


def precision_bits(options: PlanOptions) -> int:
    """Return 16 or 32: what was asked for, else 16 where there is a GPU to train on."""
    if options.precision == "auto":
        return 16 if torch.cuda.is_available() else 32
    return int(options.precision)
