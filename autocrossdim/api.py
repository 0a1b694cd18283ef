"""Positional calls of the commands, until their last caller uses keywords."""

from typing import Any

import autocrossdim
from autocrossdim.records.plan import PlanOptions

_POSITIONS = {
    "plan_and_preprocess": ("dataset", "work", "planner", "options", "processes", "overwrite"),
    "train": (
        "dataset",
        "work",
        "config",
        "fold",
        "weights",
        "device",
        "restart",
        "settings",
        "devices",
        "parallel",
        "slurm",
    ),
    "predict": (
        "model",
        "input",
        "output",
        "work",
        "fold",
        "config",
        "probabilities",
        "mirroring",
        "device",
        "overwrite",
        "uncertainty",
        "postprocessing",
        "part",
        "slurm",
        "jobs",
    ),
    "ensemble": ("folders", "output", "dataset"),
    "find_best": ("dataset", "work", "device", "processes"),
    "report": ("dataset", "work", "output"),
    "export": ("dataset", "output", "work", "config", "fold", "onnx"),
    "evaluate": ("predictions", "references", "dataset", "output", "processes"),
    "verify": ("dataset", "processes"),
}


def __getattr__(name: str) -> Any:
    if name not in _POSITIONS:
        raise AttributeError(name)

    def call(*args: Any, **kwargs: Any) -> Any:
        kwargs |= dict(zip(_POSITIONS[name], args, strict=False))
        if "settings" in kwargs:
            kwargs["set"] = kwargs.pop("settings")
        options = kwargs.pop("options", None)
        if isinstance(options, PlanOptions):
            kwargs |= options.model_dump()
        return getattr(autocrossdim, name)(**kwargs)

    return call
