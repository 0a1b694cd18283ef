"""Normalisation of each channel, by nnU-Net's rules."""

from autocrossdim.data.dataset import Dataset
from autocrossdim.preprocessing.normalize import scheme_for
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.normalization import Normalization

INSIDE_MASK_BELOW = 0.75  # share of voxels that cropping keeps, below which z-scores use the mask only (nnU-Net)
OTHER_THAN_ZSCORE = ("nonorm", "rescale_to_0_1", "rgb_to_0_1")  # CT channels, too, have roughly mean 0 and variance 1


def choose_normalization(dataset: Dataset, fingerprint: Fingerprint) -> tuple[Normalization, ...]:
    """Return the normalisation of each channel, which follows from the channel's name."""
    inside_mask = fingerprint.relative_size_after_cropping() < INSIDE_MASK_BELOW
    return tuple(
        Normalization(
            scheme=(scheme := scheme_for(name)),
            inside_mask=inside_mask and scheme == "zscore",
            mean=intensities.mean,
            std=intensities.std,
            lower=intensities.percentile_00_5,
            upper=intensities.percentile_99_5,
        )
        for name, intensities in zip(dataset.channel_names, fingerprint.intensities, strict=True)
    )


def normalization_note(normalization: tuple[Normalization, ...]) -> str:
    """Return a note on whether the channels are normalised as pretrained weights expect."""
    other = sorted({channel.scheme for channel in normalization} & set(OTHER_THAN_ZSCORE))
    if not other:
        return "Channels are normalised to zero mean and unit variance, as pretrained weights expect."
    return (
        f"The channel names in dataset.json request {' and '.join(other)}. Pretrained weights expect zero mean and "
        "unit variance; batch normalisation has to adapt to the difference."
    )
