"""The options of planning, each declared once: for the command line, for Python and for planners."""

import ast
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from autocrossdim.records.network import NetworkChoices
from autocrossdim.records.plan import MAX_BATCH, PatchSide


class PlanOptions(NetworkChoices):
    """What the user may ask of a planner; `None` leaves the choice to it.

    Each field is an option of the command line and a keyword of `autocrossdim.plan_and_preprocess`.
    """

    memory: Annotated[float, Field(gt=0, le=1e5)] | None = Field(
        None, description="Memory in GB for training (default: that of the GPU, else 8)."
    )
    threshold: Annotated[float, Field(ge=1, le=1e5)] = Field(
        3.0, description="Anisotropy (largest / smallest voxel spacing) from which a 2D network is chosen."
    )
    patch_size: Annotated[tuple[PatchSide, ...], Field(min_length=2, max_length=3)] | None = Field(
        None,
        description="Patch size in voxels, coarsest axis first, such as 48,64,48; two numbers are in-plane.",
    )
    batch_size: Annotated[int, Field(ge=2, le=MAX_BATCH)] | None = Field(None, description="Patches per training step.")
    keep_orientation: bool = Field(
        False, description="Use images as stored, without reorienting them to a common anatomical orientation."
    )
    precision: Literal["auto", "16", "32"] = Field(
        "auto", description="Floating-point precision in bits to plan for (auto: 16 on a GPU, else 32)."
    )
    trainer: str = Field("default", description="Name of the installed trainer that trains the networks.")
    trial: bool = Field(True, description="Run a few real training steps to measure time and memory.")

    def overrides(self, planner: str | None) -> dict[str, str]:
        """Return what the user chose, by option; whether to run a trial is no such choice.

        Args:
            planner: Name of the requested planner; None if none was requested.
        """
        chosen = {
            name: str(value)
            for name, value in self.model_dump().items()
            if name != "trial" and value != type(self).model_fields[name].default
        }
        return chosen | ({"planner": planner} if planner else {})

    @classmethod
    def values(cls, overrides: Mapping[str, str]) -> dict[str, Any]:
        """Turn `overrides` back into options, not yet validated and without the planner."""
        defaults = {name: cls.model_fields[name].default for name in overrides if name in cls.model_fields}
        return {
            name: overrides[name] if isinstance(default, str) else value_of(overrides[name])
            for name, default in defaults.items()
        }


def value_of(text: str) -> Any:
    """Undo `str`: parse a Python literal; any other text is returned unchanged."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
