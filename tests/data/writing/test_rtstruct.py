"""RTSTRUCT: contours that become the same masks again, on axial and oblique series."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocrossdim
from autocrossdim.data.converting.annotations import structure_mask
from autocrossdim.data.dataset import Case
from autocrossdim.data.images import read_dicom_series
from autocrossdim.data.writing.formats import find
from autocrossdim.data.writing.results import Results
from autocrossdim.inference.predictor import Predictor
from autocrossdim.records.labels import Labels

pydicom = pytest.importorskip("pydicom")

OBLIQUE = (0.8, 0.36, 0.48, -0.6, 0.48, 0.64, 0.0, -0.8, 0.6)


@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), OBLIQUE], ids=["axial", "oblique"])
def test_contours_become_the_same_masks_again(
    direction: tuple[float, ...],
    blob: np.ndarray,
    predictor: Predictor,
    write_series: Callable[..., list[Any]],
    tmp_path: Path,
) -> None:
    image = blob.copy()
    image[2, 6:9, 14:17] = 0  # a hole
    series = tmp_path / "heart"
    slices = write_series(series, image, (3.0, 1.5, 0.75), direction, PatientAge="050Y", InstitutionName="secret")
    (path,) = autocrossdim.predict("any", series, tmp_path / "out", format="rtstruct")
    segmentation = predictor(series)
    labels = predictor.plan.labels
    assert segmentation.label[2, 7, 15] == 0 < segmentation.label[2, 7, 10]
    for name, values in labels.foreground.items():
        expected = np.isin(segmentation.label, values)
        assert expected.any()
        np.testing.assert_array_equal(structure_mask(path, name, segmentation.geometry), expected)

    content = pydicom.dcmread(path)
    assert [region.ROIName for region in content.StructureSetROISequence] == list(labels.names)
    contour = content.ROIContourSequence[0].ContourSequence[0]
    image_of = {each.SOPInstanceUID: each for each in slices}[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
    normal = np.array(direction).reshape(3, 3)[:, 2]
    distance = (np.reshape(contour.ContourData, (-1, 3)).astype(float) - image_of.ImagePositionPatient) @ normal
    np.testing.assert_allclose(distance, 0, atol=1e-3)  # mm
    assert (content.PatientID, content.StudyInstanceUID) == ("p7", slices[0].StudyInstanceUID)
    assert "secret" not in str(content)
    assert "PatientAge" not in content


def test_labels_that_were_not_found_have_no_contours(
    blob: np.ndarray, predictor: Predictor, write_series: Callable[..., list[Any]], tmp_path: Path
) -> None:
    write_series(tmp_path / "empty", blob * 0)
    (path,) = autocrossdim.predict("any", tmp_path / "empty", tmp_path / "out", format="rtstruct")
    content = pydicom.dcmread(path)
    assert len(content.StructureSetROISequence) == len(content.ROIContourSequence) == 2
    assert all("ContourSequence" not in region for region in content.ROIContourSequence)


@pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom, which writes the series below
@pytest.mark.parametrize("format", ["rtstruct", "dicom-seg"])
def test_values_against_the_standard_are_copied_without_a_warning_that_quotes_them(
    format: str, blob: np.ndarray, write_series: Callable[..., list[Any]], tmp_path: Path
) -> None:
    pytest.importorskip("highdicom")
    write_series(tmp_path / "series", blob, StudyInstanceUID="1.2.Zyxstudy", AccessionNumber="Zyx" * 9)
    geometry = read_dicom_series(tmp_path / "series").geometry
    results = Results(tmp_path, Labels.from_dataset_json({"background": 0, "comb": 1}), ".nii.gz", find(format))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        results.write(Case("case", (tmp_path / "series",), None), np.ones(geometry.shape, np.uint8), geometry)
    assert [str(warning.message) for warning in shown if "VR" in str(warning.message)] == []


def test_a_contour_of_many_points_keeps_its_type(write_series: Callable[..., list[Any]], tmp_path: Path) -> None:
    """Explicit VRs have no room for the length of a decimal string of more than 64 kB."""
    comb = np.zeros((2, 60, 99), np.uint8)
    comb[:, 2:58, 2:97:2] = comb[:, 2, 2:97] = 1
    write_series(tmp_path / "comb", comb)
    geometry = read_dicom_series(tmp_path / "comb").geometry
    results = Results(tmp_path, Labels.from_dataset_json({"background": 0, "comb": 1}), ".nii.gz", find("rtstruct"))
    case = Case("comb", (tmp_path / "comb",), None)
    results.write(case, comb, geometry)
    (contour, _) = pydicom.dcmread(results.path(case)).ROIContourSequence[0].ContourSequence
    assert contour.NumberOfContourPoints > 2_500
    assert contour["ContourData"].VR == "DS"
    np.testing.assert_array_equal(structure_mask(results.path(case), "comb", geometry), comb)
