"""From DICOM to report: no name leaves the headers, no connection is opened, and files have the user's permissions."""

import gzip
import importlib.util
import os
import socket
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocrossdim
from autocrossdim.models.onnx import PACKAGES

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

QUICK = {"steps_per_epoch": 1, "validation_batches": 1, "workers": 0, "slices_first": False}
CHOICES = {"encoder": "test_efficientnet", "patch_size": (16, 16, 16), "batch_size": 2}


@dataclass
class Outcome:
    """What some commands left behind.

    Attributes:
        outputs: The files and directories that they wrote to.
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
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a directory with DICOM files; until the tests end, there is no network, and new files have the umask."""
    folder = tmp_path_factory.mktemp("privacy")
    for number in range(4):
        write_series(folder / "source" / f"case{number}", number)
    before = os.umask(UMASK)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, _refused)
        patch.setattr(socket, "getaddrinfo", _refused)
        try:
            yield folder
        finally:
            os.umask(before)


@contextmanager
def printing_to(file: Path) -> Iterator[None]:
    with file.open("w", encoding="utf-8") as stream, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        yield


def below(*folders: Path) -> list[Path]:
    return [file for folder in folders for file in (folder, *folder.rglob("*"))]


@pytest.fixture(scope="module")
def outcome(place: Path) -> Outcome:
    """Convert, plan, train a fold, report, export and predict, in this process."""
    raw, work, model = place / "Dataset001_Private", place / "work", place / "model.acd"
    with printing_to(place / "printed"):
        autocrossdim.convert(place / "source", raw, processes=1)
        autocrossdim.verify(raw, processes=1)
        autocrossdim.plan_and_preprocess(raw, work=work, trial=False, processes=1, **CHOICES)
        autocrossdim.train(raw, work=work, fold=0, weights="random", epochs=1, set=QUICK)
        autocrossdim.report(raw, work=work)
        autocrossdim.export(raw, work=work, output=model)
        segmented = autocrossdim.predict(
            model, place / "source/case0/slices", place / "segmented", probabilities=True, uncertainty=True
        )
    assert len(segmented) == 1
    return Outcome([*below(raw, work, place / "segmented"), model], (place / "printed").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rest(outcome: Outcome, place: Path) -> Outcome:
    """Go on with the commands that need more than one fold, take longer, or use what others wrote."""
    raw, work = place / "Dataset001_Private", place / "work"
    (place / "unlabelled").mkdir()
    for number in (4, 5):
        write_series(place / f"case{number}", number)
        (place / f"case{number}" / "slices").rename(place / "unlabelled" / f"case{number}")
    fitted = {"weights": "random", "epochs": 1, "set": QUICK}
    results: list[object] = []
    with printing_to(place / "printed_later"):
        autocrossdim.train(raw, work=work, **fitted)
        results.append(autocrossdim.find_best(raw, work=work, processes=1))
        autocrossdim.predict(raw, place / "source/case0/slices", place / "again", work=work, probabilities=True)
        autocrossdim.ensemble([place / "segmented", place / "again"], place / "averaged", dataset=raw)
        results.append(autocrossdim.annotate_next(raw, work=work, input=place / "unlabelled"))
        results.append(autocrossdim.distil(raw, work=work, **fitted))
        arms = ["Omnia-Net", "DX-Net", "Omnia-Net + DX-Net"]
        few = {"cases": 2, "seeds": 1, "test_cases": 1, "processes": 1}
        options = {key: value for key, value in CHOICES.items() if key != "patch_size"}
        results.append(autocrossdim.study("2d3d", raw, work=work, arm=arms, **few, **fitted, **options))
        autocrossdim.report(raw, work=work)
        autocrossdim.export(raw, work=work, hub=place / "hub")
    written = below(raw, work, *(place / name for name in ("again", "averaged", "hub")))
    printed = "\n".join([(place / "printed_later").read_text(encoding="utf-8"), *map(str, results)])
    return Outcome(written, printed)


@pytest.fixture(scope="module")
def onnx(outcome: Outcome, place: Path) -> Outcome:
    if absent := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        pytest.skip(f"{', '.join(absent)} not installed")
    with printing_to(place / "printed_onnx"):
        raw, work = place / "Dataset001_Private", place / "work"
        autocrossdim.export(raw, work=work, output=place / "second.acd", fold=0, onnx=place / "onnx")
    return Outcome(below(place / "onnx"), (place / "printed_onnx").read_text(encoding="utf-8"))


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


def traces(outcome: Outcome) -> set[str]:
    """Return where the planted values are in what some commands wrote and printed."""
    values = (*PLANTED.values(), STUDY)
    files = {
        f"{file}: {value}"
        for file in outcome.outputs
        if file.is_file()
        for content in contents(file)
        for value in values
        if value.encode() in content or value in file.name
    }
    return files | {f"printed: {value}" for value in values if value in outcome.printed}


def wrong_permissions(outcome: Outcome) -> dict[str, str]:
    """Return the paths whose permissions are not those that the umask of the user leaves."""
    permissions = {path: path.stat().st_mode & 0o777 for path in outcome.outputs}
    expected = {path: (0o777 if path.is_dir() else 0o666) & ~UMASK for path in outcome.outputs}
    return {str(path): oct(mode) for path, mode in permissions.items() if mode != expected[path]}


@pytest.mark.slow
def test_nothing_of_the_dicom_headers_is_in_any_output(outcome: Outcome) -> None:
    assert {file.suffix for file in outcome.outputs} >= {".json", ".gz", ".html", ".acd", ".npz", ".csv", ".b2nd"}
    assert "Decision" in outcome.printed
    assert traces(outcome) == set()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask for files")
def test_files_have_the_permissions_that_the_umask_of_the_user_leaves(outcome: Outcome) -> None:
    assert wrong_permissions(outcome) == {}


@pytest.mark.slow
def test_all_other_commands_write_nothing_of_the_headers_either(rest: Outcome) -> None:
    names = {file.name for file in rest.outputs}
    assert names >= {
        "best.json",
        "student.json",
        "annotate_next.csv",
        "table.md",
        "figure.png",
        "README.md",
        "model.acd",
    }
    assert "omnia_distilled" in rest.printed or "dx_distilled" in rest.printed
    assert traces(rest) == set()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no umask for files")
def test_files_of_all_other_commands_have_the_permissions_too(rest: Outcome) -> None:
    assert wrong_permissions(rest) == {}


@pytest.mark.slow
def test_onnx_files_contain_nothing_of_the_headers_and_no_path_of_this_computer(onnx: Outcome) -> None:
    (network,) = (file for file in onnx.outputs if file.suffix == ".onnx")
    assert traces(onnx) == set()
    assert wrong_permissions(onnx) == {}
    assert str(Path(autocrossdim.__file__).parent).encode() not in network.read_bytes()


def test_blocked_connections_would_have_been_noticed(outcome: Outcome) -> None:
    with pytest.raises(AssertionError, match="a connection was opened"):
        socket.create_connection(("127.0.0.1", 1))
