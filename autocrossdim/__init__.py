"""autocrossdim: self-configuring segmentation for few annotated scans.

Every command is a function with the options of the command line: `autocrossdim.train("Dataset004", fold=0, epochs=50)`.
`Predictor.load(model)(image)` segments one image. What the caller can correct is raised as a `UserError`.
"""

import sys
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocrossdim.commands.annotate_next import annotate_next
    from autocrossdim.commands.convert import convert
    from autocrossdim.commands.demo import demo
    from autocrossdim.commands.distil import distil
    from autocrossdim.commands.doctor import doctor
    from autocrossdim.commands.ensemble import ensemble
    from autocrossdim.commands.evaluate import evaluate
    from autocrossdim.commands.export import export
    from autocrossdim.commands.find_best import find_best
    from autocrossdim.commands.plan import plan
    from autocrossdim.commands.plan_and_preprocess import plan_and_preprocess
    from autocrossdim.commands.predict import predict
    from autocrossdim.commands.report import report
    from autocrossdim.commands.run import run
    from autocrossdim.commands.study import study
    from autocrossdim.commands.train import train
    from autocrossdim.commands.verify import verify
    from autocrossdim.inference.predictor import Predictor
    from autocrossdim.system.errors import UserError

__all__ = [
    "Predictor",
    "UserError",
    "annotate_next",
    "convert",
    "demo",
    "distil",
    "doctor",
    "ensemble",
    "evaluate",
    "export",
    "find_best",
    "plan",
    "plan_and_preprocess",
    "predict",
    "report",
    "run",
    "study",
    "train",
    "verify",
]

__version__ = version("autocrossdim")

_CLASSES = {"Predictor": "autocrossdim.inference.predictor", "UserError": "autocrossdim.system.errors"}


class _Package(ModuleType):
    """The package, in which a public name stays what `__all__` promises.

    Importing a subpackage sets it as an attribute of the package; `autocrossdim.report` is also a command.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    """Return the public names, which notebooks and Python prompts complete."""
    return ["__version__", *__all__]


def __getattr__(name: str) -> Any:
    """Import on first use, so that `autocrossdim --help` does not wait for torch."""
    from importlib import import_module

    if name in _CLASSES:
        return getattr(import_module(_CLASSES[name]), name)
    if name in __all__:
        return getattr(import_module(f"autocrossdim.commands.{name}"), name)
    raise AttributeError(f"module 'autocrossdim' has no attribute '{name}'")
