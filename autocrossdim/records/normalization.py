"""How channels are normalised, as a plan records it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Intensity = Annotated[float, Field(ge=-1e30, le=1e30)]  # what float32 can compute with


Scheme = Literal["zscore", "ct", "nonorm", "rescale_to_0_1", "rgb_to_0_1"]


class Normalization(BaseModel):
    """How one channel is normalised.

    Attributes:
        scheme: `zscore` (mean 0 and standard deviation 1 per case), `ct` (clipped to percentiles of the foreground of
            the dataset, then normalised by its mean and standard deviation), `nonorm`, `rescale_to_0_1`, or
            `rgb_to_0_1` (divided by 255).
        inside_mask: Whether `zscore` uses only the voxels that were imaged and leaves the others at 0.
        mean: Mean of the foreground of the dataset, in the unit of the image; used by `ct`, as are the next three.
        std: Standard deviation of the foreground.
        lower: 0.5th percentile of the foreground.
        upper: 99.5th percentile of the foreground.
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
