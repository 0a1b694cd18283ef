"""DICOM series with DICOM-SEG (written by highdicom) and RTSTRUCT files."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest

import autocrossdim
from autocrossdim.data.converting import annotations
from autocrossdim.data.images import read_image, read_label
from autocrossdim.system.errors import UserError

highdicom = pytest.importorskip("highdicom")
pydicom = pytest.importorskip("pydicom")

from pydicom.sr.codedict import codes  # noqa: E402
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid  # noqa: E402

SHAPE = (5, 16, 12)
SPACING = (4.0, 1.5, 0.75)  # mm (z, y, x)
ORIGIN = (-4.0, 7.0, -100.0)  # mm (x, y, z)
ORGAN = (slice(1, 4), slice(4, 12), slice(3, 9))
TUMOUR = (slice(2, 3), slice(6, 8), slice(4, 7))


def header(path: Path, storage: UID, series: str, study: str) -> "pydicom.Dataset":
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = storage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = storage, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.FrameOfReferenceUID = f"{study}.9"
    dataset.PatientID, dataset.PatientName, dataset.PatientBirthDate, dataset.PatientSex = "p", "P^", "", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20200101", "120000", "1", "1"
    dataset.ReferringPhysicianName, dataset.Manufacturer = "", "none"
    return dataset


def image(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(-500, 500, SHAPE).astype(np.int16)


def write_series(folder: Path, number: int, *, uid: int = 1) -> list["pydicom.Dataset"]:
    """Write slices whose names do not follow their positions."""
    folder.mkdir(parents=True, exist_ok=True)
    slices = []
    for z, plane in enumerate(image(number)):
        path = folder / f"s{(3 * z) % SHAPE[0]}_{uid}.dcm"
        dataset = header(path, CTImageStorage, f"1.2.{number + 1}.{uid}", f"1.2.{number + 1}")
        dataset.Modality, dataset.InstanceNumber, dataset.SeriesNumber = "CT", z + 1, uid
        dataset.ImagePositionPatient = [ORIGIN[0], ORIGIN[1], ORIGIN[2] + SPACING[0] * z]
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [SPACING[1], SPACING[2]], SPACING[0]
        dataset.Rows, dataset.Columns = plane.shape
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = plane.tobytes()
        dataset.save_as(path, enforce_file_format=True)
        slices.append(dataset)
    return slices


def write_segments(path: Path, slices: list["pydicom.Dataset"], **segments: tuple[slice, ...]) -> None:
    """Write a DICOM-SEG file, whose empty frames are left out."""
    masks = np.zeros((*SHAPE, len(segments)), np.uint8)
    for number, place in enumerate(segments.values()):
        masks[(*place, number)] = 1
    algorithm = highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
    described = [
        highdicom.seg.SegmentDescription(number, name, codes.SCT.Organ, codes.SCT.Liver, algorithm)
        for number, name in enumerate(segments, start=1)
    ]
    # Slices from top to bottom, against the order of the image.
    highdicom.seg.Segmentation(
        slices[::-1], masks[::-1], "BINARY", described, generate_uid(), 100, generate_uid(), 1, "none", "none", "1", "1"
    ).save_as(path)


def write_contours(path: Path, slices: list["pydicom.Dataset"], **structures: tuple[slice, ...]) -> None:
    """Write an RTSTRUCT file with a rectangle per slice, half a pixel around the centres of its pixels."""
    first = slices[0]
    dataset = header(path, RTStructureSetStorage, f"{first.SeriesInstanceUID}.5", first.StudyInstanceUID)
    dataset.Modality, dataset.StructureSetLabel = "RTSTRUCT", "drawn"
    series, study, frame = pydicom.Dataset(), pydicom.Dataset(), pydicom.Dataset()
    series.SeriesInstanceUID = first.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.RTReferencedStudySequence = [study]
    dataset.ReferencedFrameOfReferenceSequence = [frame]
    dataset.StructureSetROISequence, dataset.ROIContourSequence = [], []
    for number, (name, (z, y, x)) in enumerate(structures.items(), start=1):
        region, drawn = pydicom.Dataset(), pydicom.Dataset()
        region.ROINumber, region.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for plane in range(z.start, z.stop):
            contour = pydicom.Dataset()
            corners = [(y.start, x.start), (y.start, x.stop), (y.stop, x.stop), (y.stop, x.start)]
            points = [
                (ORIGIN[0] + SPACING[2] * (b - 0.5), ORIGIN[1] + SPACING[1] * (a - 0.5), ORIGIN[2] + SPACING[0] * plane)
                for a, b in corners
            ]
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [round(value, 4) for point in points for value in point]
            drawn.ContourSequence.append(contour)
        dataset.StructureSetROISequence.append(region)
        dataset.ROIContourSequence.append(drawn)
    dataset.save_as(path, enforce_file_format=True)


def expected() -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[ORGAN], label[TUMOUR] = 1, 2
    return label


@pytest.mark.parametrize("write", [write_segments, write_contours])
def test_structures_come_to_the_grid_of_their_series(tmp_path: Path, convert, write) -> None:
    for number in range(2):
        slices = write_series(tmp_path / "dicom" / f"p{number}" / "study" / "ct", number)
        write_series(tmp_path / "dicom" / f"p{number}" / "study" / "other", number, uid=2)
        write(tmp_path / "dicom" / f"p{number}" / "study" / "drawn.dcm", slices, organ=ORGAN, tumour=TUMOUR)
    write_series(tmp_path / "dicom" / "p9", 9)
    dataset, content = convert(tmp_path / "dicom")
    assert content["channel_names"] == {"0": "CT"}
    assert content["labels"] == {"background": 0, "organ": 1, "tumour": 2}
    label, geometry = read_label(dataset / "labelsTr" / "p1.nii.gz")
    np.testing.assert_array_equal(label, expected())
    assert geometry.spacing == pytest.approx(SPACING)
    assert geometry.origin == pytest.approx(ORIGIN)
    np.testing.assert_array_equal(read_image([dataset / "imagesTr" / "p1_0000.nii.gz"]).array[0], image(1))
    np.testing.assert_array_equal(read_image([dataset / "imagesTs" / "p9_0000.nii.gz"]).array[0], image(9))


def test_structures_are_chosen_and_overlaps_reported(tmp_path: Path) -> None:
    for name in ("p0", "p1"):
        slices = write_series(tmp_path / "dicom" / name, 0)
        write_segments(tmp_path / "dicom" / name / "seg.dcm", slices, organ=ORGAN, tumour=TUMOUR)
        write_contours(tmp_path / "dicom" / name / "rt.dcm", slices, body=(slice(0, 5), slice(1, 15), slice(1, 11)))
    labels = {"tumour": 2, "organ": 1}
    converted = autocrossdim.convert(tmp_path / "dicom", tmp_path / "out", label=labels, processes=1)
    (warning,) = converted.warnings
    assert warning.startswith(
        "structures overlap in 2 cases (p0, p1), where the highest value wins: tumour over organ (12 "
    )
    np.testing.assert_array_equal(read_label(tmp_path / "out" / "labelsTr" / "p0.nii.gz")[0], expected())
    with pytest.raises(UserError, match="no annotation has the name liver. Names: body, organ, tumour"):
        autocrossdim.convert(tmp_path / "dicom", tmp_path / "other", label=["liver=1"], processes=1)


def test_a_hole_is_a_contour_inside_another(tmp_path: Path) -> None:
    slices = write_series(tmp_path / "p0", 0)
    write_contours(tmp_path / "rt.dcm", slices, ring=ORGAN)
    content = pydicom.dcmread(tmp_path / "rt.dcm")
    write_contours(tmp_path / "hole.dcm", slices, ring=TUMOUR)
    hole = pydicom.dcmread(tmp_path / "hole.dcm").ROIContourSequence[0].ContourSequence
    content.ROIContourSequence[0].ContourSequence.extend(hole)
    content.save_as(tmp_path / "rt.dcm")
    geometry = autocrossdim.data.images.read_dicom_series(tmp_path / "p0").geometry
    mask = annotations.structure_mask(tmp_path / "rt.dcm", "ring", geometry)
    np.testing.assert_array_equal(mask, expected() == 1)


def test_a_contour_that_is_listed_twice_is_no_hole(tmp_path: Path) -> None:
    """The second time from another point and in the other direction."""
    slices = write_series(tmp_path / "p0", 0)
    write_contours(tmp_path / "rt.dcm", slices, organ=ORGAN)
    content = pydicom.dcmread(tmp_path / "rt.dcm")
    contours = content.ROIContourSequence[0].ContourSequence
    again = copy.deepcopy(contours[0])
    again.ContourData = np.roll(np.reshape(again.ContourData, (-1, 3))[::-1], 1, axis=0).ravel().tolist()
    contours.append(again)
    content.save_as(tmp_path / "rt.dcm")
    geometry = autocrossdim.data.images.read_dicom_series(tmp_path / "p0").geometry
    expected = np.zeros(SHAPE, np.bool_)
    expected[ORGAN] = True
    np.testing.assert_array_equal(annotations.structure_mask(tmp_path / "rt.dcm", "organ", geometry), expected)


@pytest.mark.parametrize(("kind", "joined"), [("CLOSED_PLANAR", True), ("CLOSEDPLANAR_XOR", False)])
def test_contours_that_overlap_are_joined_unless_their_type_says_otherwise(
    tmp_path: Path, kind: str, joined: bool
) -> None:
    left, right = (slice(1, 4), slice(4, 12), slice(2, 7)), (slice(1, 4), slice(6, 14), slice(5, 10))
    slices = write_series(tmp_path / "p0", 0)
    write_contours(tmp_path / "rt.dcm", slices, left=left, right=right)
    content = pydicom.dcmread(tmp_path / "rt.dcm")
    content.ROIContourSequence[0].ContourSequence.extend(content.ROIContourSequence[1].ContourSequence)
    for contour in content.ROIContourSequence[0].ContourSequence:
        contour.ContourGeometricType = kind
    content.save_as(tmp_path / "rt.dcm")
    geometry = autocrossdim.data.images.read_dicom_series(tmp_path / "p0").geometry
    expected = np.zeros((2, *SHAPE), np.bool_)
    expected[0][left] = expected[1][right] = True
    mask = annotations.structure_mask(tmp_path / "rt.dcm", "left", geometry)
    np.testing.assert_array_equal(mask, expected.any(axis=0) if joined else expected.sum(axis=0) == 1)


def test_islands_lie_in_holes_and_holes_may_overlap_or_touch_the_edge() -> None:
    def square(y: int, x: int, size: int) -> np.ndarray:
        mask = np.zeros((30, 30), np.bool_)
        mask[y : y + size, x : x + size] = True
        return mask

    organ, hole, overlapping, island = square(2, 2, 25), square(6, 6, 12), square(10, 14, 9), square(9, 9, 3)
    expected = organ & ~hole & ~overlapping | island
    drawn = [(mask, False) for mask in (island, overlapping, organ, hole, organ.copy())]
    np.testing.assert_array_equal(annotations._filled(drawn), expected)
    edge = square(2, 1, 22)  # one of its columns is outside
    np.testing.assert_array_equal(annotations._filled([(organ, False), (edge, False)]), organ & ~edge)


def test_regions_and_files_with_the_same_structure_are_joined(tmp_path: Path) -> None:
    """A file has the organ as two regions of one name; another file has it once more, as an earlier version would."""
    slices = write_series(tmp_path / "dicom" / "p0", 0)
    path = tmp_path / "dicom" / "p0" / "rt.dcm"
    write_contours(path, slices, organ=ORGAN, again=TUMOUR)
    content = pydicom.dcmread(path)
    content.StructureSetROISequence[1].ROIName = "organ"
    content.save_as(path)
    beside = (slice(1, 4), slice(4, 12), slice(9, 10))
    write_contours(tmp_path / "dicom" / "p0" / "earlier.dcm", slices, organ=beside, other=TUMOUR)
    converted = autocrossdim.convert(tmp_path / "dicom", tmp_path / "out", label={"organ": 1}, processes=1)
    (warning,) = converted.warnings
    assert warning.startswith(f"{tmp_path}/dicom/p0: several files annotate organ in the same series; their masks")
    mask = np.zeros(SHAPE, np.bool_)
    mask[ORGAN] = mask[beside] = True
    np.testing.assert_array_equal(read_label(tmp_path / "out" / "labelsTr" / "p0.nii.gz")[0], mask)


def test_annotations_that_do_not_fit_are_faults(tmp_path: Path) -> None:
    slices = write_series(tmp_path / "dicom" / "between", 0)
    write_contours(tmp_path / "dicom" / "between" / "rt.dcm", slices, organ=ORGAN)
    content = pydicom.dcmread(tmp_path / "dicom" / "between" / "rt.dcm")
    for contour in content.ROIContourSequence[0].ContourSequence:
        contour.ContourData = [value + 2.0 * (n % 3 == 2) for n, value in enumerate(contour.ContourData)]
    content.save_as(tmp_path / "dicom" / "between" / "rt.dcm")
    slices = write_series(tmp_path / "dicom" / "stranger", 1)
    for each in slices:
        each.SeriesInstanceUID = "1.2.77"
    write_segments(tmp_path / "dicom" / "stranger" / "seg.dcm", slices, organ=ORGAN)
    write_series(tmp_path / "dicom" / "two", 2)
    write_series(tmp_path / "dicom" / "two", 2, uid=2)
    with pytest.raises(UserError) as error:
        autocrossdim.convert(tmp_path / "dicom", tmp_path / "out", processes=1)
    message = str(error.value)
    assert "a contour of 'organ' does not lie in a slice of the image (it is at slice 1.50" in message
    assert "seg.dcm: the series it refers to is not in" in message
    assert "two: 2 series and no annotation" in message


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_series(tmp_path / "dicom" / "p0", 0)
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(UserError, match=r"pip install 'autocrossdim\[dicom\]'"):
        autocrossdim.convert(tmp_path / "dicom", tmp_path / "out", processes=1)


def test_an_oblique_series_gets_its_segments_back(real_data: Path, tmp_path: Path, convert) -> None:
    """The label of a public case, drawn on the same heart as NIfTI, written as DICOM-SEG and converted."""
    stored, geometry = read_label(real_data / "Dataset045_SunnybrookLV" / "labelsTr" / "SC-HF-I-1_ED.nii.gz")
    folder = tmp_path / "dicom" / "heart"
    shutil.copytree(real_data / "formats" / "dicom_sunnybrook" / "ED_series", folder)
    slices = [pydicom.dcmread(file) for file in sorted(folder.iterdir())]
    for each in slices:  # what anonymising left behind, and highdicom does not write
        each.StudyDate = each.PatientBirthDate = "20000101"
        each.FrameOfReferenceUID = slices[0].FrameOfReferenceUID
    normal = np.cross(slices[0].ImageOrientationPatient[:3], slices[0].ImageOrientationPatient[3:])
    slices.sort(key=lambda each: float(np.dot(each.ImagePositionPatient, normal)))
    label = np.flip(stored, axis=[axis for axis, flipped in enumerate(_flips(geometry, slices[0])) if flipped])
    algorithm = highdicom.seg.SegmentAlgorithmTypeValues.MANUAL
    cavity = highdicom.seg.SegmentDescription(1, "cavity", codes.SCT.Organ, codes.SCT.Heart, algorithm)
    highdicom.seg.Segmentation(
        slices, label.astype(np.uint8), "BINARY", [cavity], generate_uid(), 9, generate_uid(), 1, "no", "no", "1", "1"
    ).save_as(folder / "seg.dcm")
    dataset, content = convert(tmp_path / "dicom")
    assert content["channel_names"] == {"0": "MR"}
    converted, place = read_label(dataset / "labelsTr" / "heart.nii.gz")
    assert converted.sum() == stored.sum() > 0
    np.testing.assert_allclose(_centre(converted, place), _centre(stored, geometry), atol=0.05)  # mm


def _flips(geometry, first: "pydicom.Dataset") -> list[bool]:
    """Whether the axes (z, y, x) of an image run against those of a series."""
    row, column = np.array(first.ImageOrientationPatient[:3]), np.array(first.ImageOrientationPatient[3:])
    direction = np.array(geometry.direction).reshape(3, 3)
    axes = (np.cross(row, column), column, row)
    return [bool(direction[:, 2 - number] @ axis < 0) for number, axis in enumerate(axes)]


def _centre(mask: np.ndarray, geometry) -> np.ndarray:
    """Return the centre of a structure in mm (x, y, z)."""
    index = np.argwhere(mask > 0).mean(axis=0)[::-1] * np.array(geometry.spacing[::-1])
    return np.array(geometry.origin) + np.array(geometry.direction).reshape(3, 3) @ index
