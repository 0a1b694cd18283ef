"""How channels are normalised, as a plan records it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Intensity = Annotated[float, Field(ge=-1e30, le=1e30)]  # what float32 can compute with


Scheme = Literal["zscore", "ct", "nonorm", "rescale_to_0_1", "rgb_to_0_1"]


class Normalization(BaseModel):
    """How one channel is normalised.

    Attributes:
        scheme: `zscore` (mean 0, deviation 1 over the case), `ct` (clipped to the dataset's foreground
            percentiles, then its mean and deviation), `nonorm`, `rescale_to_0_1`, `rgb_to_0_1` (divided by 255).
        inside_mask: `zscore` looks only at the voxels that were imaged and leaves the others at 0.
        mean, std, lower, upper: of the dataset's foreground, in the image's own unit; used by `ct`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scheme: Scheme
    inside_mask: bool = False
    mean: Intensity = 0.0
    std: Intensity = 1.0
    lower: Intensity = 0.0
    upper: Intensity = 0.0

    def effective(self) -> "Normalization":
        """Return a copy without the intensities that the scheme does not use, to compare two plans by."""
        if self.scheme == "ct":
            return self
        return Normalization(scheme=self.scheme, inside_mask=self.inside_mask)
