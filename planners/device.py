"""The memory there is to plan for."""

import torch

from autocrossdim.plan import DEFAULT_MEMORY_GB, GIGABYTE, PlanOptions


def memory_budget(options: PlanOptions) -> tuple[int, str]:
    """Return the bytes training may take and a sentence saying where the figure comes from.

    What was asked for, else the first GPU's memory, else 8 GiB.
    """
    if options.memory_gb is not None:
        return int(options.memory_gb * GIGABYTE), f"You gave it {options.memory_gb:g} GB of memory."
    if torch.cuda.is_available():
        name, total = torch.cuda.get_device_name(0), torch.cuda.get_device_properties(0).total_memory
        return total, f"It is sized for the {total / GIGABYTE:.0f} GB of your {name}."
    return (
        int(DEFAULT_MEMORY_GB * GIGABYTE),
        f"No GPU was found, so it is sized for {DEFAULT_MEMORY_GB:g} GB of memory (change it with --memory).",
    )
