"""Whatever the orientation of a file, its slices are shown in the radiological convention."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest

from autocrossdim.records.labels import Labels
from autocrossdim.report.scans import Plane, Scan, read_scan

LABELS = Labels.from_dataset_json({"background": 0, "block": 1, "speck": 2, "ignore": 3})
MARKER = {"axial": "RA", "coronal": "RS", "sagittal": "AS"}  # the corner in which the marker is, by plane


def directions() -> list[tuple[float, ...]]:
    """Return all 48 direction matrices along the axes, row by row."""
    matrices = []
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        matrix = np.zeros((3, 3))
        for axis, (row, sign) in enumerate(zip(order, signs, strict=True)):
            matrix[row, axis] = sign
        matrices.append(tuple(matrix.ravel()))
    return matrices


def marked(direction: Sequence[float], size: int = 7) -> np.ndarray:
    """Return an array (Z, Y, X) stored along `direction`, with one voxel in its right, anterior, superior corner."""
    matrix = np.reshape(direction, (3, 3))
    array = np.zeros((size, size + 1, size + 2), np.uint8)
    place = []
    for axis in (2, 1, 0):  # the array's axes are ITK's in reverse
        column = matrix[:, axis]
        towards = -column[0] - column[1] + column[2]  # to the right (-x), to the front (-y) and upwards (+z)
        place.append(-1 if towards > 0 else 0)
    array[tuple(place)] = 1
    return array


@pytest.mark.parametrize("direction", [*directions()[::5], (0.9848, -0.1736, 0, 0.1736, 0.9848, 0, 0, 0, 1)])
def test_a_voxel_at_the_right_front_top_is_shown_in_the_corner_with_these_letters(
    direction: Sequence[float], write_image: Callable[..., Path], tmp_path: Path
) -> None:
    label = write_image(tmp_path / "label.nii.gz", marked(direction), (3.0, 2.0, 1.0), direction=direction)
    scan = read_scan([label], label, label, LABELS)
    assert [plane.name for plane in scan.planes()] == list(MARKER)
    for plane in scan.planes():
        picture = plane.slice(scan.annotation, scan.fullest(plane.axis))
        ((row, column),) = np.argwhere(picture)
        left, right, top, bottom = plane.marks
        corner = (left if column == 0 else right) + (top if row == 0 else bottom)
        assert corner == MARKER[plane.name]
        assert row in (0, len(picture) - 1)
        assert column in (0, picture.shape[1] - 1)
        assert plane.slice(scan.image[0], scan.fullest(plane.axis))[row, column] == 1


def test_the_spacing_follows_its_axis(write_image: Callable[..., Path], tmp_path: Path) -> None:
    sagittal = (0, 0, 1, 1, 0, 0, 0, -1, 0)  # slices from right to left, as sagittal scans are stored
    label = write_image(tmp_path / "a.nii.gz", marked(sagittal), (5.0, 2.0, 1.0), direction=sagittal)
    scan = read_scan([label], label, label, LABELS)
    assert scan.spacing == pytest.approx((2.0, 1.0, 5.0))
    assert scan.shape == (8, 9, 7)
    assert scan.acquired().name == "sagittal"


def test_pictures_have_one_plane_without_letters(write_image: Callable[..., Path], tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4) % 3
    file = write_image(tmp_path / "a.png", array)
    scan = read_scan([file], file, file, LABELS)
    (plane,) = scan.planes()
    assert plane.marks == ""
    np.testing.assert_array_equal(plane.slice(scan.annotation, 0), array)  # in storage order


def test_a_slice_without_a_place_has_no_letters(write_image: Callable[..., Path], tmp_path: Path) -> None:
    """As of ultrasound: the header of a volume of one slice states an orientation, which is a default."""
    array = np.arange(12, dtype=np.uint8).reshape(1, 3, 4) % 3
    for name, direction in {"lps": (1, 0, 0, 0, 1, 0, 0, 0, 1), "ras": (-1, 0, 0, 0, -1, 0, 0, 0, 1)}.items():
        file = write_image(tmp_path / f"{name}.nii.gz", array, direction=direction)
        scan = read_scan([file], file, file, LABELS)
        (plane,) = scan.planes()
        assert plane.marks == ""
        np.testing.assert_array_equal(plane.slice(scan.annotation, 0), array[0])  # in storage order
    placed = write_image(tmp_path / "placed.nii.gz", array, origin=(-120, -80, 35))
    assert [plane.marks for plane in read_scan([placed], placed, placed, LABELS).planes()] == ["RLAP"]


def scan_of(label: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Scan:
    return Scan(label[None] * 10.0, label, label, spacing, oriented=True)


def test_reducing_keeps_coarse_axes_means_and_tiny_labels() -> None:
    label = np.zeros((6, 40, 41), np.uint8)
    label[:, 10:30, 10:30] = 1
    label[3, 35, 35] = 2
    scan = replace(scan_of(label, (5.0, 1.0, 1.0)), uncertainty=np.full(label.shape, 80, np.uint8))
    small = scan.reduced(6 * 20 * 20)
    assert small.shape[0] == 6
    assert np.prod(small.shape) <= 6 * 20 * 20
    assert small.shape[1] >= 19
    assert np.multiply(small.shape, small.spacing) == pytest.approx(np.multiply(scan.shape, scan.spacing))
    assert small.image.mean() == pytest.approx(scan.image.mean(), rel=0.05)
    assert set(np.unique(small.annotation)) == {0, 1, 2}
    np.testing.assert_array_equal(small.uncertainty, np.full(small.shape, 80))
    assert scan.reduced(label.size) is scan


def test_a_scan_without_labels_stays_whole_and_one_with_labels_is_cropped() -> None:
    label = np.zeros((60, 60, 60), np.uint8)
    assert scan_of(label).around_labels().shape == (60, 60, 60)
    label[28:32, 28:32, 28:32] = 1
    assert scan_of(label).around_labels().shape == (28, 28, 28)


def test_voxels_to_be_ignored_are_cleared_in_both(write_image: Callable[..., Path], tmp_path: Path) -> None:
    expected = np.array([[[1, 3], [0, 3]]] * 2, np.uint8)
    reference = write_image(tmp_path / "a.nii.gz", expected)
    prediction = write_image(tmp_path / "b.nii.gz", np.ones_like(expected))
    scan = read_scan([reference], reference, prediction, LABELS)
    assert scan.annotation.sum() == 2
    assert scan.prediction.sum() == 4


def test_the_uncertainty_has_the_orientation_of_the_annotation(
    write_image: Callable[..., Path], tmp_path: Path
) -> None:
    sagittal = (0, 0, 1, 1, 0, 0, 0, -1, 0)
    label = write_image(tmp_path / "a.nii.gz", marked(sagittal), (5.0, 2.0, 1.0), direction=sagittal)
    entropy = write_image(tmp_path / "map.nii.gz", 100 * marked(sagittal), (5.0, 2.0, 1.0), direction=sagittal)
    scan = read_scan([label], label, label, LABELS, uncertainty=entropy)
    assert scan.uncertainty is not None
    np.testing.assert_array_equal(scan.uncertainty, 100 * scan.annotation)
    plane = scan.acquired()
    part = scan.one_slice(plane, scan.fullest(plane.axis))
    assert part.uncertainty is not None
    assert part.uncertainty.sum() == 100
    assert read_scan([label], label, label, LABELS).uncertainty is None


def test_the_slice_of_a_missed_label_or_of_a_false_alarm_is_shown_first(
    write_image: Callable[..., Path], tmp_path: Path
) -> None:
    annotation, prediction = np.zeros((2, 6, 8, 8), np.uint8)
    annotation[1, :4, :4] = prediction[1, :4, :4] = 1
    annotation[4, 6, 6] = 2
    reference = write_image(tmp_path / "annotation.nii.gz", annotation)
    missing = write_image(tmp_path / "missing.nii.gz", prediction)
    assert read_scan([reference], reference, missing, LABELS).fullest(0) == 1
    assert read_scan([reference], reference, missing, LABELS, unmatched=["speck"]).fullest(0) == 4
    assert read_scan([reference], missing, reference, LABELS, unmatched=["speck"]).fullest(0) == 4


def test_a_flipped_plane_begins_with_its_last_row() -> None:
    array = np.arange(24).reshape(2, 3, 4)
    plane = Plane("coronal", axis=1, rows=0, columns=2, flipped=True)
    np.testing.assert_array_equal(plane.slice(array, 2), [[20, 21, 22, 23], [8, 9, 10, 11]])
