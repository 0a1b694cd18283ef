"""DICOM-SEG on the frames of the series that was segmented, read back frame by frame."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocrossdim
from autocrossdim.data.dataset import Case
from autocrossdim.data.dicom import series_files
from autocrossdim.data.images import read_dicom_series
from autocrossdim.data.writing.formats import find
from autocrossdim.data.writing.results import Results
from autocrossdim.inference.predictor import Predictor
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError

highdicom = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

OBLIQUE = (0.8, 0.36, 0.48, -0.6, 0.48, 0.64, 0.0, -0.8, 0.6)
PRIVATE = {
    "PatientAge": "050Y",
    "PatientComments": "secret",
    "InstitutionName": "secret",
    "StudyDescription": "secret",
    "SeriesDescription": "secret",
    "OperatorsName": "secret",
    "OtherPatientIDs": "secret",
    "DeviceSerialNumber": "secret",
    "StationName": "secret",
}
COPIED = {
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID"),
    *("StudyInstanceUID", "AccessionNumber", "ReferringPhysicianName", "FrameOfReferenceUID"),
}


def masks(path: Path, folder: Path, shape: tuple[int, ...]) -> np.ndarray:
    """Return the segments (S, Z, Y, X), each frame at the slice that it refers to."""
    content = pydicom.dcmread(path)
    numbers = {str(pydicom.dcmread(file).SOPInstanceUID): z for z, file in enumerate(series_files(folder))}
    found = np.zeros((len(content.SegmentSequence), *shape), np.uint8)
    frames = content.pixel_array.reshape(-1, *shape[1:])
    shared = content.SharedFunctionalGroupsSequence[0]
    for frame, place in zip(frames, content.PerFrameFunctionalGroupsSequence, strict=True):
        source = place.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        number = (place if "SegmentIdentificationSequence" in place else shared).SegmentIdentificationSequence[0]
        found[number.ReferencedSegmentNumber - 1, numbers[source]] = frame
    return found


@pytest.fixture
def series(tmp_path: Path, blob: np.ndarray, write_series: Callable[..., list[Any]]) -> Path:
    """An axial and an oblique series, and an empty one, in directories of their own."""
    write_series(tmp_path / "series" / "axial", blob, **PRIVATE)
    write_series(tmp_path / "series" / "oblique", blob, (3.0, 1.2, 1.2), OBLIQUE)
    write_series(tmp_path / "series" / "nothing", blob * 0, PatientBirthDate="00000000", StudyTime="999999")
    return tmp_path / "series"


@pytest.mark.parametrize("name", ["axial", "oblique", "nothing"])
def test_segments_lie_on_the_frames_of_their_series(
    name: str, series: Path, predictor: Predictor, tmp_path: Path
) -> None:
    """The network works at another spacing and orientation; segments overlap, and their names are not ASCII."""
    (path,) = autocrossdim.predict("any", series / name, tmp_path / "out", format="dicom-seg")
    assert path == tmp_path / "out" / f"{name}.dcm"
    segmentation = predictor(series / name)
    expected = predictor.plan.labels.to_regions(segmentation.label)
    assert expected.any(axis=(1, 2, 3)).all() == (name != "nothing")
    np.testing.assert_array_equal(masks(path, series / name, segmentation.label.shape), expected)

    read = highdicom.seg.segread(path)
    assert [read.get_segment_description(n).segment_label for n in (1, 2)] == ["Gewebe (größer)", "Kern"]
    kinds = [read.get_segment_description(n).segmented_property_type for n in (1, 2)]
    assert [(kind.scheme_designator, kind.value) for kind in kinds] == [("SCT", "85756007"), ("SCT", "10200004")]
    if name != "nothing":
        volume = read.get_volume(segment_numbers=[2])
        place = volume.get_geometry()
        assert sorted(place.spacing) == pytest.approx(sorted(segmentation.geometry.spacing))
        index = np.argwhere(volume.array.squeeze() > 0).mean(axis=0)
        centre = (place.affine @ [*index, 1])[:3]
        direction = np.array(segmentation.geometry.direction).reshape(3, 3)
        inside = np.argwhere(segmentation.label == 2).mean(axis=0)[::-1] * segmentation.geometry.spacing[::-1]
        np.testing.assert_allclose(centre, segmentation.geometry.origin + direction @ inside, atol=1e-3)  # mm


def test_nothing_of_the_patient_is_copied_but_what_the_standard_demands(
    series: Path, predictor: Predictor, tmp_path: Path
) -> None:
    (path,) = autocrossdim.predict("any", series / "axial", tmp_path / "out", format="dicom-seg")
    result, source = pydicom.dcmread(path), pydicom.dcmread(next((series / "axial").iterdir()))
    assert "secret" not in str(result)
    assert result.ContentCreatorName == ""
    about_people = {each.keyword for each in result if each.VR == "PN" or each.tag.group == 0x10}
    assert about_people - {"ContentCreatorName"} == {
        each for each in COPIED if each.startswith("Patient") or each.endswith("Name")
    }
    assert all(result[keyword].value == source[keyword].value for keyword in COPIED)
    assert result.SeriesInstanceUID != source.SeriesInstanceUID
    (path,) = autocrossdim.predict("any", series / "nothing", tmp_path / "out", format="dicom-seg")
    assert (pydicom.dcmread(path).PatientBirthDate, pydicom.dcmread(path).StudyTime) == ("", "")


def test_all_series_of_a_directory_are_written_once_with_their_volumes(
    series: Path, predictor: Predictor, tmp_path: Path
) -> None:
    paths = autocrossdim.predict("any", series, tmp_path / "out", format="dicom-seg", uncertainty=True)
    assert [path.name for path in paths] == ["axial.dcm", "nothing.dcm", "oblique.dcm"]
    times = [path.stat().st_mtime_ns for path in paths]
    again = autocrossdim.predict("any", series, tmp_path / "out", format="dicom-seg", uncertainty=True)
    assert [path.stat().st_mtime_ns for path in again] == times
    table = (tmp_path / "out" / "volumes.csv").read_text(encoding="utf-8").splitlines()
    assert len(table) == 1 + 3 * 2
    assert table[3] == "nothing,Gewebe (größer),0,0,"


def test_python_writes_what_the_command_writes(series: Path, predictor: Predictor, tmp_path: Path) -> None:
    image = series / "oblique"
    segmentation = predictor(image)
    path = predictor.write(segmentation, tmp_path / "out", name="heart", image=image, format="dicom-seg")
    assert path == tmp_path / "out" / "heart.dcm"
    expected = predictor.plan.labels.to_regions(segmentation.label)
    np.testing.assert_array_equal(masks(path, image, segmentation.label.shape), expected)
    with pytest.raises(UserError, match="heart is not a DICOM series"):
        predictor.write(segmentation, tmp_path / "out", name="heart", format="dicom-seg")


def test_labels_without_overlap_have_segments_of_their_own(series: Path, tmp_path: Path) -> None:
    folder = series / "oblique"
    image = read_dicom_series(folder)
    label = np.zeros(image.geometry.shape, np.uint16)
    label[image.array[0] > 40], label[image.array[0] > 80] = 7, 300
    labels = Labels.from_dataset_json({"background": 0, "b": 300, "a": 7})
    results, case = Results(tmp_path, labels, ".nii.gz", find("dicom-seg")), Case("heart", (folder,), None)
    results.write(case, label, image.geometry)
    expected = np.stack([label == 7, label == 300])
    np.testing.assert_array_equal(masks(results.path(case), folder, label.shape), expected)
    assert [each.SegmentLabel for each in pydicom.dcmread(results.path(case)).SegmentSequence] == ["a", "b"]


def test_a_real_oblique_series_gets_its_segments(real_data: Path, tmp_path: Path) -> None:
    """Its dates are not valid, and each slice has a frame of reference of its own."""
    folder = real_data / "formats" / "dicom_sunnybrook" / "ED_series"
    image = read_dicom_series(folder)
    label = (image.array[0] > 100).astype(np.uint8)
    case = Case("heart", (folder,), None)
    results = Results(tmp_path, Labels.from_dataset_json({"background": 0, "bright": 1}), ".nii.gz", find("dicom-seg"))
    results.write(case, label, image.geometry)
    np.testing.assert_array_equal(masks(results.path(case), folder, label.shape), label[None])
    assert label.any()


def test_what_cannot_be_written_is_refused_before_work(
    nifti: Path, series: Path, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"--format dicom: no such format. Use one of .*dicom-seg"):
        autocrossdim.predict("any", nifti, tmp_path / "out", format="dicom")
    with pytest.raises(UserError, match="sub-01_T1w is not a DICOM series"):
        autocrossdim.predict("any", nifti, tmp_path / "out", format="dicom-seg")
    monkeypatch.setattr(Results, "write", None)
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(UserError, match=r"--format dicom-seg needs .* pip install 'autocrossdim\[dicom\]'"):
        autocrossdim.predict("any", series, tmp_path / "out", format="dicom-seg")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("elements", "message"),
    [({"FrameOfReferenceUID": ""}, "FrameOfReferenceUID is missing"), ({"NumberOfFrames": 2}, "several frames")],
)
def test_a_series_that_cannot_be_referred_to_is_named(
    elements: dict[str, Any],
    message: str,
    blob: np.ndarray,
    predictor: Predictor,
    write_series: Callable[..., Any],
    tmp_path: Path,
) -> None:
    write_series(tmp_path / "series", blob)
    segmentation = predictor(tmp_path / "series")
    write_series(tmp_path / "series", blob, **elements)
    with pytest.raises(UserError, match=rf"\.dcm: {message}"):
        predictor.write(segmentation, tmp_path / "out", name="a", image=tmp_path / "series", format="dicom-seg")
