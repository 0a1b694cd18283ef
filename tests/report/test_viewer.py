"""The viewer's data are small and hold what the files hold."""

import base64
import io
import re
import zlib
from dataclasses import replace
from importlib.resources import files
from itertools import product
from typing import Any

import numpy as np
import pytest
from PIL import Image

from autocrossdim.records.colours import PALETTE
from autocrossdim.records.labels import Labels
from autocrossdim.report.drawn import LISTED, WORST_VOLUMES
from autocrossdim.report.pictures import CASING
from autocrossdim.report.scans import Scan
from autocrossdim.report.viewer import (
    CT_LEVELS,
    CT_WINDOWS,
    MOST_BYTES,
    RAMP,
    SLICE_BYTES,
    ct_limits,
    shared,
    single_slice,
    volume,
)

LABELS = Labels.from_dataset_json({"background": 0, "a": 2, "b": 7})


def noise(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Scan:
    random = np.random.default_rng(0)
    label = np.zeros(shape, np.uint8)
    label[tuple(slice(n // 4, n // 2 + 1) for n in shape)] = 7
    image, uncertainty = random.normal(0, 300, (1, *shape)), random.integers(0, 256, shape)
    return Scan(image, label, np.roll(label, 1, 2), spacing, oriented=True, uncertainty=uncertainty)


def label_map(view: dict[str, Any], name: str) -> np.ndarray:
    content = zlib.decompress(base64.b64decode(view[name]))
    return np.frombuffer(content, "<u2" if view["wide"] else "u1").reshape(view["shape"])


def picture(view: dict[str, Any], name: str = "image") -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(view[name]))))


def size(view: dict[str, Any]) -> int:
    return sum(len(view[name]) for name in ("image", "annotation", "prediction", "uncertainty"))


def test_label_maps_are_exact_and_numbered_without_gaps() -> None:
    scan = noise((5, 30, 40))
    view = volume(scan, LABELS, ct=False)
    assert view["shape"] == (5, 30, 40)
    np.testing.assert_array_equal(label_map(view, "annotation"), np.where(scan.annotation == 7, 2, 0))
    np.testing.assert_array_equal(label_map(view, "prediction"), np.where(scan.prediction == 7, 2, 0))
    assert [label["values"] for label in shared(LABELS, ct=False)["labels"]] == [[1], [2]]


def test_values_that_are_not_declared_are_background_and_many_values_fit() -> None:
    scan = noise((2, 8, 8))
    scan.annotation[0, 0, :2] = 5, 99
    assert label_map(volume(scan, LABELS, ct=False), "annotation")[0, 0, :2].tolist() == [0, 0]
    many = Labels(foreground={f"label {k}": (k,) for k in range(1, 301)})
    wide = Scan(scan.image, np.full(scan.shape, 299, np.uint16), scan.prediction, scan.spacing, oriented=True)
    assert (label_map(volume(wide, many, ct=False), "annotation") == 299).all()


def test_slices_are_found_in_the_picture_where_the_script_looks_for_them() -> None:
    ramp = np.repeat(np.arange(7.0), 16 * 24).reshape(1, 7, 16, 24)
    label = np.zeros((7, 16, 24), np.uint8)
    uncertainty = (ramp[0] * 20).astype(np.uint8)  # up to 120: more than two labels
    scan = Scan(ramp, label, label, (1.0, 1.0, 1.0), oriented=True, uncertainty=uncertainty)
    view = volume(scan, LABELS, ct=False)
    tiles, undecided, columns = picture(view), picture(view, "uncertainty"), view["columns"]
    for number in range(7):
        y, x = number // columns * 16 + 8, number % columns * 24 + 12
        assert tiles[y, x] == pytest.approx(number * 255 / 6, abs=6)
        assert undecided[y, x] == pytest.approx(min(number / 5, 1) * 255, abs=6)


def test_a_case_without_an_uncertainty_map_has_none_in_the_viewer() -> None:
    scan = replace(noise((2, 8, 8)), uncertainty=None)
    assert volume(scan, LABELS, ct=False)["uncertainty"] == ""


def test_the_colours_of_the_uncertainty_grow_brighter_so_that_hues_need_not_be_told_apart() -> None:
    steps = [luminance(colour) for colour in RAMP]
    assert steps == sorted(steps)


def test_noise_that_cannot_be_compressed_is_reduced_until_it_fits() -> None:
    view = volume(noise((80, 90, 90)), LABELS, ct=True)
    assert size(view) <= MOST_BYTES * 4 / 3 + 12
    assert "Resolution is reduced" in " ".join(view["notes"])
    assert size(single_slice(noise((3, 300, 300), (5.0, 1.0, 1.0)), LABELS, ct=True)) <= SLICE_BYTES * 4 / 3 + 12


def test_a_hundred_cases_leave_a_megabyte_for_the_rest_of_the_page() -> None:
    assert ((WORST_VOLUMES + 2) * MOST_BYTES + LISTED * SLICE_BYTES) * 4 / 3 < 4_000_000


def test_the_slice_of_a_case_is_the_one_with_most_of_its_labels() -> None:
    scan = noise((9, 20, 20), (4.0, 1.0, 1.0))
    scan.annotation[6, 1:19, 1:19] = 2
    view = single_slice(scan, LABELS, ct=False)
    assert view["shape"] == (1, 20, 20)
    assert [plane["name"] for plane in view["planes"]] == ["axial"]
    assert view["planes"][0]["marks"] == "RLAP"
    assert view["notes"] == ["Only slice 7 of 9 is included for this case."]


def test_narrow_ct_windows_keep_many_greys() -> None:
    values, greys = zip(*CT_LEVELS, strict=True)
    for centre, width in CT_WINDOWS.values():
        low, high = np.interp([centre - width / 2, centre + width / 2], values, greys)
        assert high - low > 25


def luminance(colour: str) -> float:
    if len(colour) == 4:
        colour = "#" + "".join(2 * digit for digit in colour[1:])
    channels = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


@pytest.mark.parametrize("colour", PALETTE)
def test_outlines_stand_out_from_any_grey(colour: str) -> None:
    """Against a grey, either the line or its dark casing is visible; against each other, the two always are."""
    line, casing = luminance(colour), luminance(CASING)
    assert contrast(line, casing) >= 4.5
    assert min(max(contrast(line, grey), contrast(casing, grey)) for grey in np.linspace(0, 1, 101)) >= 3


def test_text_is_legible_on_every_ground_in_light_dark_and_print() -> None:
    modes = re.findall(r":root \{(.*?)\}", (files("autocrossdim.report") / "report.css").read_text("utf-8"), re.DOTALL)
    assert len(modes) == 3
    for mode in modes:
        colours = dict(re.findall(r"--(\w+): (#\w+)", mode))
        for text, ground in product(("text", "light", "link"), ("ground", "box", "caution", "code")):
            assert contrast(luminance(colours[text]), luminance(colours[ground])) >= 4.5, (text, ground)


@pytest.mark.parametrize(("units", "window"), [(60, "soft tissue"), (-800, "lung"), (700, "bone")])
def test_a_ct_scan_is_shown_in_the_window_that_suits_its_labels(units: int, window: str) -> None:
    scan = noise((4, 8, 8))
    scan.image[0][scan.annotation > 0] = units
    assert volume(scan, LABELS, ct=True)["window"] == window
    low, high = ct_limits(scan)
    assert low < units < high


def test_the_slice_shown_first_has_most_annotated_voxels_else_most_predicted_ones() -> None:
    annotation, prediction = np.zeros((2, 5, 6, 6), np.uint8)
    prediction[4] = annotation[1, :2] = 1
    scan = Scan(np.zeros((1, 5, 6, 6)), annotation, prediction, (1.0, 1.0, 1.0), oriented=True)
    assert scan.fullest(0) == 1
    annotation[:] = 0
    assert scan.fullest(0) == 4
