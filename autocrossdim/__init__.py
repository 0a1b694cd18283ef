"""autocrossdim: self-configuring segmentation for few annotated scans.

The commands are also functions: `plan_and_preprocess`, `train`, `predict`, `ensemble`, `find_best`, `evaluate`,
`report`, `export`, `verify`; and `Predictor.load(model)(array, spacing)` segments one image.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocrossdim.api import (
        ensemble,
        evaluate,
        export,
        find_best,
        plan_and_preprocess,
        predict,
        report,
        train,
        verify,
    )
    from autocrossdim.inference.predictor import Predictor

__all__ = [
    "Predictor",
    "ensemble",
    "evaluate",
    "export",
    "find_best",
    "plan_and_preprocess",
    "predict",
    "report",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `autocrossdim --help` does not wait for torch."""
    if name == "Predictor":
        from autocrossdim.inference.predictor import Predictor

        return Predictor
    if name in __all__:
        from autocrossdim import api

        return getattr(api, name)
    raise AttributeError(f"module 'autocrossdim' has no attribute '{name}'")
