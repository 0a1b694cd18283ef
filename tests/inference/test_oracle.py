"""Prediction from file to file with a network that knows the answer, so that any lost or moved voxel is noticed.

The image contains its label: channel k is 1 where the label is class (or region) k, within a frame of zeros that is
cropped. The oracle returns its channels as logits. Everything else is real: files, preprocessing, sliding-window
inference, resampling to the original grid, files.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import read_image, read_label, write_array, write_label
from autocrossdim.inference.model import Model
from autocrossdim.inference.predictor import Predictor
from autocrossdim.records.labels import Labels

CLASSES = Labels.from_dataset_json({"background": 0, "a": 1, "b": 7, "c": 300})
REGIONS = Labels.from_dataset_json({"background": 0, "whole": [1, 2, 4], "part": [2, 4], "core": [4]}, [1, 2, 4])
AXIS_ORDERS = [(0, 1, 2), (2, 0, 1), (1, 0, 2), (1, 2, 0)]
SPACING = st.floats(0.3, 8).map(lambda mm: float(np.float32(mm)))


class Oracle(nn.Module):
    """Returns logits from an image that contains its label; in 2D, from the middle one of its slices."""

    def __init__(self, slices: int = 1) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.slices = slices

    def forward(self, x: Tensor) -> Tensor:
        return (x[:, self.slices // 2 :: self.slices] - 0.5) * self.scale


def channels_of(label: np.ndarray, labels: Labels, body: np.ndarray) -> np.ndarray:
    """Return the image (K, Z, Y, X) that contains `label`; 0 outside the body."""
    if labels.has_regions:
        return labels.to_regions(label) * body
    return np.stack([label == value for value in labels.values]) * body


def body_in(shape: Sequence[int], random: np.random.Generator, most: int) -> np.ndarray:
    """Return the mask of a box with a margin of up to `most` voxels on each side."""
    body = np.zeros(shape, dtype=bool)
    frame = [(random.integers(0, most + 1), random.integers(0, most + 1)) for _ in shape]
    body[
        tuple(slice(min(lo, n - 1), max(n - hi, min(lo, n - 1) + 1)) for (lo, hi), n in zip(frame, shape, strict=True))
    ] = True
    return body


def noise(shape: Sequence[int], labels: Labels, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return random labels of single voxels, and the body that contains them."""
    body = body_in(shape, random, 3)
    return random.choice(labels.values, size=shape) * body, body


def blobs(shape: Sequence[int], labels: Labels, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return smooth blobs of about 10 voxels in radius, nested and adjacent, and the body that contains them."""
    grid = np.indices(shape).astype(float)
    middle = np.array(shape) / 2 + random.uniform(-1, 1, 3)
    label = np.zeros(shape, dtype=np.int32)
    values = [value for value in labels.values if value]
    for value, size, shift in zip(values, (0.44, 0.33, 0.22), (0.0, 0.02, 0.04), strict=True):
        radii = np.array(shape) * size * random.uniform(0.95, 1.05, 3)
        centre = middle + np.array(shape) * shift * random.choice([-1, 1], 3)
        distance = sum(((g - c) / r) ** 2 for g, c, r in zip(grid, centre, radii, strict=True))
        label[distance <= 1] = value
    body = body_in(shape, random, 2)
    return label * body, body


def direction(random: np.random.Generator, dims: int) -> tuple[float, ...]:
    """Return a random direction matrix: axes permuted, mirrored and, in half of the cases, rotated."""
    matrix = np.eye(dims)[random.permutation(dims)] * random.choice([-1, 1], dims)
    if random.random() < 0.5 and dims == 3:
        matrix = Rotation.from_rotvec(random.normal(size=3)).as_matrix() @ matrix
    return tuple(float(x) for x in matrix.ravel())


def write_case(folder: Path, image: np.ndarray, spacing: Sequence[float], random: Any, ending: str) -> list[Path]:
    """Write one file per channel, at a random position."""
    dims = 2 if image.shape[1] == 1 else 3
    spacing = (1.0, *spacing[1:]) if dims == 2 else spacing
    geometry = Geometry(
        shape=image.shape[1:],
        spacing=tuple(spacing),
        origin=tuple(random.uniform(-200, 200, dims)),
        direction=direction(random, dims),
        dims=dims,
    )
    paths = [folder / f"case_{channel:04d}{ending}" for channel in range(len(image))]
    for path, channel in zip(paths, image, strict=True):
        write_array(channel, geometry, path)
    return paths


def there_and_back(paths: list[Path], predictor: Predictor) -> np.ndarray:
    """Read, segment, write and read again; the geometry must equal that of the image exactly."""
    segmentation = predictor(paths)
    output = paths[0].with_name(f"out{''.join(paths[0].suffixes)}")
    write_label(segmentation.label, segmentation.geometry, output)
    label, geometry = read_label(output)
    assert geometry == segmentation.geometry == read_image(paths).geometry
    return label


def dice(found: np.ndarray, expected: np.ndarray) -> float:
    return 2 * (found & expected).sum() / (found.sum() + expected.sum())


def oracle_of(*plans: Any, mirroring: bool = False) -> Predictor:
    """Return an ensemble of one configuration per plan, with two folds each."""
    models = []
    for plan in plans:
        configuration = plan.configuration()
        folds = [Oracle(configuration.slices).eval() for _ in range(2)]
        models.append(Model(plan, configuration, folds))
    return Predictor(models, mirroring=mirroring)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(*[st.integers(1, 13)] * 3),
    spacing=st.tuples(SPACING, SPACING, SPACING),
    transpose=st.sampled_from(AXIS_ORDERS),
    dims=st.sampled_from([2, 3]),
    slices=st.sampled_from([1, 3]),
    labels=st.sampled_from([CLASSES, REGIONS]),
    ending=st.sampled_from([".nii.gz", ".nii", ".nrrd", ".mha"]),
    patch=st.tuples(*[st.integers(1, 8)] * 3),
    mirroring=st.booleans(),
)
@pytest.mark.slow
def test_without_resampling_every_voxel_is_segmented_exactly(
    make_plan: Callable[..., Any], tmp_path: Path, seed: int, shape: Any, spacing: Any, transpose: Any, dims: int,
    slices: int, labels: Labels, ending: str, patch: Any, mirroring: bool,
) -> None:  # fmt: skip
    random = np.random.default_rng(seed)
    label, body = noise(shape, labels, random)
    image = channels_of(label, labels, body)
    paths = write_case(tmp_path, image, spacing, random, ending)
    plan = make_plan(
        dims,
        tuple(spacing[axis] for axis in transpose),
        transpose=transpose,
        labels=labels,
        channel_names=tuple(map(str, range(len(image)))),
        patch_size=patch[-dims:],
        slices=slices if dims == 2 else 1,
        file_ending=ending,
    )
    np.testing.assert_array_equal(there_and_back(paths, oracle_of(plan, mirroring=mirroring)), label)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(*[st.integers(36, 43)] * 3),
    zoom=st.tuples(*[st.floats(0.6, 1.4)] * 3),
    transpose=st.sampled_from(AXIS_ORDERS),
    labels=st.sampled_from([CLASSES, REGIONS]),
    kinds=st.sampled_from([(2,), (3,), (2, 3)]),
)
@pytest.mark.slow
def test_with_resampling_smooth_labels_are_recovered_by_each_network_and_by_both(
    make_plan: Callable[..., Any], tmp_path: Path, seed: int, shape: Any, zoom: Any, transpose: Any, labels: Labels,
    kinds: tuple[int, ...],
) -> None:  # fmt: skip
    random = np.random.default_rng(seed)
    spacing = tuple(float(np.float32(mm)) for mm in random.uniform(0.9, 1.1, 3))
    # The spacings stay within a factor of 3, beyond which the coarse axis is resampled by nearest neighbour.
    label, body = blobs(shape, labels, random)
    image = channels_of(label, labels, body)
    paths = write_case(tmp_path, image, spacing, random, ".nii.gz")
    plans = []
    for dims in kinds:
        fields = {"transpose": transpose, "labels": labels, "channel_names": tuple(map(str, range(len(image))))}
        fields |= {"patch_size": (24, 24, 24)[-dims:], "batch_size": 8}
        plans.append(make_plan(dims, tuple(spacing[axis] * zoom[axis] for axis in transpose), **fields))
        zoom = zoom[::-1]  # a different spacing for the second network
    found = there_and_back(paths, oracle_of(*plans))
    for name, values in labels.foreground.items():
        assert dice(np.isin(found, values), np.isin(label, values)) > 0.99, name


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("coarse", [0, 1, 2])
def test_slices_much_thicker_than_wide_are_not_interpolated(
    make_plan: Callable[..., Any], tmp_path: Path, coarse: int, dims: int
) -> None:
    """Any axis of the file may be the coarse one, which is the first axis of the plan; in 3D its spacing is halved."""
    random = np.random.default_rng(coarse)
    transpose = (coarse, *(axis for axis in range(3) if axis != coarse))
    label, body = blobs((40, 40, 40), CLASSES, random)
    thick = tuple(slice(None, None, 5) if axis == coarse else slice(None) for axis in range(3))
    label, body = label[thick], body[thick]
    image = channels_of(label, CLASSES, body)
    spacing = tuple(5.0 if axis == coarse else 1.0 for axis in range(3))
    paths = write_case(tmp_path, image, spacing, random, ".nii.gz")
    fields = {"transpose": transpose, "labels": CLASSES, "channel_names": tuple("abcd"), "patch_size": (24,) * dims}
    found = there_and_back(paths, oracle_of(make_plan(dims, (2.5, 0.8, 1.3), **fields)))
    for values in CLASSES.foreground.values():
        assert dice(np.isin(found, values), np.isin(label, values)) > 0.99


@pytest.mark.parametrize("ending", [".png", ".bmp", ".tif", ".nii.gz"])
def test_pictures(make_plan: Callable[..., Any], write_image: Callable[..., Path], tmp_path: Path, ending: str) -> None:
    random = np.random.default_rng(0)
    label, body = noise((1, 23, 31), REGIONS, random)
    image = channels_of(label, REGIONS, body).astype(np.uint8)
    paths = [write_image(tmp_path / f"case_{c:04d}{ending}", channel[0]) for c, channel in enumerate(image)]
    plan = make_plan(2, labels=REGIONS, channel_names=tuple("abc"), patch_size=(8, 16), slices=3, file_ending=ending)
    np.testing.assert_array_equal(there_and_back(paths, oracle_of(plan, mirroring=True)), label)


def test_an_image_of_background_or_zeros_gives_an_empty_segmentation(
    make_plan: Callable[..., Any], tmp_path: Path
) -> None:
    for labels in (CLASSES, REGIONS):
        for fill in (0, 1):
            image = channels_of(np.zeros((5, 6, 7), dtype=int), labels, np.full((5, 6, 7), fill))
            paths = write_case(tmp_path, image, (1, 1, 1), np.random.default_rng(0), ".nrrd")
            plan = make_plan(labels=labels, channel_names=tuple(map(str, range(len(image)))), file_ending=".nrrd")
            assert not there_and_back(paths, oracle_of(plan)).any()
