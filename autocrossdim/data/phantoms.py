"""Small generated datasets in nnU-Net's raw format, for the demo and the tests.

A threshold cannot segment them: the same intensity has different meanings inside and outside a structure, so a
network has to use the surroundings.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import write_array, write_label
from autocrossdim.system.files import write_json

Phantom = tuple[np.ndarray, np.ndarray]  # image and label, (Z, Y, X)

NOISE = 0.15
ISOTROPIC_SPACING = (1.0, 1.0, 1.0)
ANISOTROPIC_SPACING = (6.0, 1.0, 1.0)


def nodules(random: np.random.Generator, shape: tuple[int, int, int] = (36, 44, 40)) -> Phantom:
    """Return a volume with an organ (1) and the nodules inside it (2); nodules elsewhere look alike and are background.

    Args:
        random: Source of positions and noise.
        shape: Shape (Z, Y, X) in voxels.
    """
    centre = [n / 2 + random.uniform(-2, 2) for n in shape]
    radii = [n * random.uniform(0.24, 0.3) for n in shape]
    organ = _ellipsoid(shape, centre, radii)
    image, label = 0.5 * organ, organ.astype(np.uint8)
    for inside in (True, True, False, False, False):
        allowed = _ellipsoid(shape, centre, [r * 0.65 for r in radii]) if inside else _far_from(organ)
        position = random.choice(np.argwhere(allowed))
        nodule = _ellipsoid(shape, position, [random.uniform(2.5, 4)] * 3)
        image[nodule] = 1.0
        label[nodule] = 2 if inside else 0
    return _noisy(image, random), label


def chambers(random: np.random.Generator, shape: tuple[int, int, int] = (10, 72, 72)) -> Phantom:
    """Return thick slices with a chamber (1) in its dark wall (2); bright discs without a wall are background.

    Args:
        random: Source of positions and noise.
        shape: Shape (Z, Y, X) in voxels.
    """
    depth = shape[0]
    image, label = np.full(shape, 0.5), np.zeros(shape, dtype=np.uint8)
    y, x = (n / 2 + random.uniform(-8, 8) for n in shape[1:])
    angle = random.uniform(0, 2 * np.pi)
    for z in range(1, depth - 1):
        bulge = np.sin(np.pi * z / (depth - 1)) ** 0.5
        radius = 10 * bulge * random.uniform(0.95, 1.05)
        wall = _disc(shape[1:], (y, x), radius + 4)
        chamber = _disc(shape[1:], (y, x), radius)
        for turn in (0.0, 2.1, 4.2):
            other = (y + 26 * np.sin(angle + turn), x + 26 * np.cos(angle + turn))
            image[z][_disc(shape[1:], other, radius * 0.8)] = 1.0
        image[z][wall], image[z][chamber] = 0.2, 1.0
        label[z][wall], label[z][chamber] = 2, 1
    return _noisy(image, random), label


def paired_organs(random: np.random.Generator, shape: tuple[int, int, int] = (32, 40, 48)) -> Phantom:
    """Return a volume with a right (1) and a left organ (2) that only their side tells apart.

    Args:
        random: Source of positions and noise.
        shape: Voxels (Z, Y, X); x grows to the left.
    """
    image, label = np.zeros(shape), np.zeros(shape, dtype=np.uint8)
    for value, side in ((1, 0.28), (2, 0.72)):
        centre = [n * at + random.uniform(-3, 3) for n, at in zip(shape, (0.5, 0.5, side), strict=True)]
        organ = _ellipsoid(shape, centre, [n * random.uniform(0.13, 0.17) for n in shape])
        image[organ], label[organ] = 0.6, value
    return _noisy(image, random), label


def near_and_far(random: np.random.Generator, shape: tuple[int, int, int] = (72, 16, 16)) -> Phantom:
    """Return a volume with two equal nodules in the middle; the one nearer to a large sphere is 1, the other 2.

    The sphere is near either end of axis 0, a fifth of its length or more away from the nearer nodule. In a patch that
    covers less of this axis, nothing tells the nodules apart.

    Args:
        random: Source of positions and noise.
        shape: Shape (Z, Y, X) in voxels.
    """
    image, label = np.zeros(shape), np.zeros(shape, dtype=np.uint8)
    length, width = shape[0], min(shape[1:])
    middle = [n / 2 + random.uniform(-0.1, 0.1) * n for n in shape[1:]]
    for value, at in ((0, 0.09), (1, 0.42), (2, 0.58)):
        centre = [
            (at + random.uniform(-0.01, 0.01)) * length,
            *(m + random.uniform(-0.06, 0.06) * width for m in middle),
        ]
        ball = _ellipsoid(shape, centre, [width * (0.14 if value else 0.25)] * 3)
        image[ball], label[ball] = (1.0 if value else 0.7), value
    if random.random() < 0.5:
        image, label = image[::-1], label[::-1].copy()
    return _noisy(image, random), label


def write_dataset(
    folder: Path,
    make: Callable[[np.random.Generator], Phantom],
    labels: dict[str, int],
    spacing: tuple[float, float, float],
    training: int = 6,
    test: int = 2,
    seed: int = 0,
) -> None:
    """Write a raw dataset of phantoms; the test cases' labels go to labelsTs.

    Args:
        folder: Directory of the dataset, such as `Dataset901_Nodules`.
        make: Function that draws one case.
        labels: Names and values, including the background.
        spacing: Spacing in mm (z, y, x).
        training: Number of training cases.
        test: Number of test cases.
        seed: Seed of the dataset.
    """
    random = np.random.default_rng(seed)
    for index in range(training + test):
        part = "Tr" if index < training else "Ts"
        image, label = make(random)
        geometry = Geometry(
            shape=(image.shape[0], image.shape[1], image.shape[2]),
            spacing=spacing,
            origin=(0.0, 0.0, 0.0),
            direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
            dims=3,
        )
        write_array(image, geometry, folder / f"images{part}" / f"case_{index:02d}_0000.nii.gz")
        write_label(label, geometry, folder / f"labels{part}" / f"case_{index:02d}.nii.gz")
    write_json(
        folder / "dataset.json",
        {
            "channel_names": {"0": "phantom"},
            "labels": labels,
            "numTraining": training,
            "file_ending": ".nii.gz",
        },
    )


def _ellipsoid(shape: tuple[int, ...], centre: np.ndarray | list[float], radii: list[float]) -> np.ndarray:
    axes = np.ogrid[tuple(slice(n) for n in shape)]
    inside: np.ndarray = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radii, strict=True)) <= 1
    return inside


def _disc(shape: tuple[int, ...], centre: tuple[float, float], radius: float) -> np.ndarray:
    return _ellipsoid(shape, list(centre), [radius, radius])


def _far_from(organ: np.ndarray) -> np.ndarray:
    """Return the voxels at which a nodule touches neither the organ nor the border."""
    border = np.ones_like(organ)
    border[4:-4, 4:-4, 4:-4] = False
    far: np.ndarray = gaussian_filter(organ.astype(float), 3) < 0.02
    allowed: np.ndarray = far & ~border
    return allowed


def _noisy(image: np.ndarray, random: np.random.Generator) -> np.ndarray:
    blurred: np.ndarray = gaussian_filter(image, 0.5)
    noise: np.ndarray = random.normal(0, NOISE, image.shape).astype(np.float32)
    noisy: np.ndarray = blurred.astype(np.float32) + noise
    return noisy
