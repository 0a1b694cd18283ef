"""From DICOM to report: no name leaves the headers, no connection is opened, and files have the user's permissions."""

import gzip
import os
import socket
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocrossdim

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("highdicom")

from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, RTStructureSetStorage, generate_uid  # noqa: E402

SHAPE = (16, 20, 18)
UMASK = 0o027
PLANTED = {
    "PatientName": "Zyxname^Planted",
    "PatientID": "ZYXID4711",
    "PatientBirthDate": "19010203",
    "PatientAddress": "Zyxstreet 9",
    "InstitutionName": "Zyxhospital",
    "ReferringPhysicianName": "Zyxdoctor^Who",
    "OperatorsName": "Zyxoperator",
    "AccessionNumber": "ZYXACC0815",
    "StudyDate": "19020304",
    "StudyDescription": "Zyxstudy",
    "SeriesDescription": "Zyxseries",
    "PatientComments": "Zyxcomment",
    "DeviceSerialNumber": "ZYXSERIAL",
}
STUDY = "1.2.826.4711."  # beginning of all UIDs of studies and series


@dataclass
class Outcome:
    """What a complete workflow left behind.

    Attributes:
        outputs: Everything below the dataset, the work directory and the predictions, and the model file.
        printed: What was printed.
    """

    outputs: list[Path]
    printed: str


def header(path: Path, storage: str, number: int) -> Any:
    """Return the elements that all files share, with the planted values."""
    meta = pydicom.dataset.FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = storage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = pydicom.dataset.FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = storage, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = f"{STUDY}{number}", f"{STUDY}{number}.9"
    for name, value in PLANTED.items():
        setattr(dataset, name, value)
    return dataset


def write_series(folder: Path, number: int) -> None:
    """Write a series with a bright block, and the block as an RTSTRUCT file."""
    slices, annotation = folder / "slices", folder / "annotation"
    slices.mkdir(parents=True)
    annotation.mkdir()
    series = f"{STUDY}{number}.1"
    volume = np.random.default_rng(number).integers(-100, 100, SHAPE).astype(np.int16)
    volume[4:12, 5:15, 4:12] += 400
    for z, plane in enumerate(volume):
        dataset = header(slices / f"{z}.dcm", CTImageStorage, number)
        dataset.SeriesInstanceUID, dataset.Modality, dataset.InstanceNumber = series, "CT", z + 1
        dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, z], [1, 0, 0, 0, 1, 0]
        dataset.PixelSpacing, dataset.SliceThickness = [1, 1], 1
        dataset.Rows, dataset.Columns = plane.shape
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
        dataset.PixelData = plane.tobytes()
        dataset.save_as(slices / f"{z}.dcm", enforce_file_format=True)
    drawn = header(annotation / "drawn.dcm", RTStructureSetStorage, number)
    drawn.SeriesInstanceUID, drawn.Modality, drawn.StructureSetLabel = f"{series}.5", "RTSTRUCT", "drawn"
    of_series, of_study, of_frame, region, contours = (pydicom.Dataset() for _ in range(5))
    of_series.SeriesInstanceUID = series
    of_study.RTReferencedSeriesSequence = [of_series]
    of_frame.RTReferencedStudySequence = [of_study]
    drawn.ReferencedFrameOfReferenceSequence = [of_frame]
    region.ROINumber, region.ROIName = 1, "block"
    contours.ReferencedROINumber, contours.ContourSequence = 1, []
    for z in range(4, 12):
        contour = pydicom.Dataset()
        corners = [(3.5, 4.5), (11.5, 4.5), (11.5, 14.5), (3.5, 14.5)]  # mm (x, y)
        contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(corners)
        contour.ContourData = [value for x, y in corners for value in (x, y, z)]
        contours.ContourSequence.append(contour)
    drawn.StructureSetROISequence, drawn.ROIContourSequence = [region], [contours]
    drawn.save_as(annotation / "drawn.dcm", enforce_file_format=True)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcome]:
    """Convert, plan, train a fold, report, export and predict, in this process and without a network."""
    folder = tmp_path_factory.mktemp("privacy")
    for number in range(4):
        write_series(folder / "source" / f"case{number}", number)
    raw, work, model = folder / "Dataset001_Private", folder / "work", folder / "model.acd"
    printed = folder / "printed"
    before = os.umask(UMASK)
    patch = pytest.MonkeyPatch()
    for name in ("connect", "connect_ex"):
        patch.setattr(socket.socket, name, _refused)
    patch.setattr(socket, "getaddrinfo", _refused)
    try:
        with printed.open("w", encoding="utf-8") as stream:
            patch.setattr(sys, "stdout", stream)
            patch.setattr(sys, "stderr", stream)
            autocrossdim.convert(folder / "source", raw, processes=1)
            autocrossdim.verify(raw, processes=1)
            autocrossdim.plan_and_preprocess(
                raw,
                work=work,
                encoder="test_efficientnet",
                patch_size=(16, 16, 16),
                batch_size=2,
                trial=False,
                processes=1,
            )
            quick = {"steps_per_epoch": 1, "validation_batches": 1, "workers": 0, "slices_first": False}
            autocrossdim.train(raw, work=work, fold=0, weights="random", epochs=1, set=quick)
            autocrossdim.report(raw, work=work)
            autocrossdim.export(raw, work=work, output=model)
            segmented = autocrossdim.predict(
                model, folder / "source/case0/slices", folder / "segmented", probabilities=True, uncertainty=True
            )
        assert len(segmented) == 1
        outputs = [file for part in (raw, work, folder / "segmented") for file in (part, *part.rglob("*"))]
        yield Outcome([*outputs, model], printed.read_text(encoding="utf-8"))
    finally:
        patch.undo()
        os.umask(before)


def _refused(*_: Any, **__: Any) -> None:
    raise AssertionError("a connection was opened")


def contents(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file, and those that are compressed in it."""
    yield path.read_bytes()
    if path.suffix == ".gz":
        yield gzip.decompress(path.read_bytes())
    elif zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            yield from (archive.read(name) for name in archive.namelist())


def test_the_planted_values_are_in_the_source(tmp_path: Path) -> None:
    write_series(tmp_path / "case", 0)
    for file in (tmp_path / "case/slices/0.dcm", tmp_path / "case/annotation/drawn.dcm"):
        assert all(value.encode() in file.read_bytes() for value in (*PLANTED.values(), STUDY))


@pytest.mark.slow
def test_nothing_of_the_dicom_headers_is_in_any_output(outcome: Outcome) -> None:
    assert {file.suffix for file in outcome.outputs} >= {".json", ".gz", ".html", ".acd", ".npz", ".csv", ".b2nd"}
    found = {
        f"{file.name}: {value}"
        for file in outcome.outputs
        if file.is_file()
        for content in contents(file)
        for value in (*PLANTED.values(), STUDY)
        if value.encode() in content or value in file.name
    }
    assert found == set()
    assert "Decision" in outcome.printed
    assert [value for value in (*PLANTED.values(), STUDY) if value in outcome.printed] == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask for files")
def test_files_have_the_permissions_that_the_umask_of_the_user_leaves(outcome: Outcome) -> None:
    permissions = {path: path.stat().st_mode & 0o777 for path in outcome.outputs}
    expected = {path: (0o777 if path.is_dir() else 0o666) & ~UMASK for path in outcome.outputs}
    assert {str(path): oct(mode) for path, mode in permissions.items() if mode != expected[path]} == {}


def test_blocked_connections_would_have_been_noticed(outcome: Outcome) -> None:
    with pytest.raises(AssertionError, match="a connection was opened"):
        socket.create_connection(("127.0.0.1", 1))
