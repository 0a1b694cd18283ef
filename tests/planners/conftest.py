from collections.abc import Callable
from pathlib import Path

import pytest

from autocrossdim.data.dataset import Dataset
from autocrossdim.records.fingerprint import CaseFingerprint, Fingerprint, Intensities
from autocrossdim.records.labels import Labels

Triple = tuple[float, float, float]
Described = tuple[Dataset, Fingerprint]


def describe(
    spacing: Triple,
    shape: tuple[int, int, int],
    cases: int = 20,
    channels: tuple[str, ...] = ("MRI",),
    labels: int = 2,
    dims: int | None = None,
) -> Described:
    """Return a dataset without files: `cases` equal cases of a spacing (mm) and shape (voxels), axes (Z, Y, X)."""
    values = {"background": 0, **{f"label {i}": i for i in range(1, labels + 1)}}
    dataset = Dataset(
        path=Path("Dataset900_Described"),
        name="Dataset900_Described",
        channel_names=channels,
        labels=Labels.from_dataset_json(values, None),
        file_ending=".nii.gz",
        groups={},
        num_training=cases,
        description={},
    )
    case = CaseFingerprint(name="a", shape=shape, cropped_shape=shape, spacing=spacing, label_voxels={0: 1, 1: 1})
    intensities = Intensities(mean=0, median=0, std=1, min=-1, max=1, percentile_00_5=-1, percentile_99_5=1)
    return dataset, Fingerprint(
        dims=dims or (2 if shape[0] == 1 else 3),
        cases=tuple(case.model_copy(update={"name": f"case_{i}"}) for i in range(cases)),
        intensities=(intensities,) * len(channels),
    )


@pytest.fixture(scope="session")
def described() -> Callable[..., Described]:
    return describe
