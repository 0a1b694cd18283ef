"""RTSTRUCT: contours of each label or region on the slices of the series, for radiotherapy planning.

Built with pydicom and scikit-image. The library rt-utils (1.2.7) needs OpenCV, draws contours through the centres of
the outermost pixels, so that structures shrink by half a pixel, and copies the patient's age, size and weight.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocrossdim.data.dicom_objects import lenient
from autocrossdim.data.writing.registry import Finished, output_format

if TYPE_CHECKING:
    import numpy as np
    from pydicom import Dataset

    from autocrossdim.data.dataset import Case

SERIES_NUMBER = 301  # our choice, beside that of DICOM-SEG


def _check(cases: "Sequence[Case]") -> None:
    from autocrossdim.data.writing.series import require_series

    require_series(cases, format="rtstruct")


def _file(case: str, ending: str) -> str:
    return f"{case}_rtstruct.dcm"


@output_format("rtstruct", "contours on the slices of a DICOM series", file=_file, check=_check)
@lenient()
def write(finished: Finished, path: Path) -> None:
    """Write a structure set with closed contours halfway between voxels inside and outside; holes are contours, too.

    Raises:
        UserError: The series lacks an element that the object has to contain.
    """
    import numpy as np
    from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage, generate_uid

    from autocrossdim.data.writing.series import read_headers
    from autocrossdim.records.colours import colours, rgb
    from autocrossdim.system.files import written_whole

    slices = read_headers(finished.case.images[0])
    content = _described(slices[0])
    content.SOPClassUID, content.SOPInstanceUID = RTStructureSetStorage, generate_uid()
    content.ReferencedFrameOfReferenceSequence = [_referenced(slices)]
    content.StructureSetROISequence, content.ROIContourSequence, content.RTROIObservationsSequence = [], [], []
    structures = zip(finished.labels.foreground.items(), colours(finished.labels), strict=True)
    for number, ((name, values), colour) in enumerate(structures, start=1):
        mask = np.isin(finished.label, values)
        structure = _items(
            ROINumber=number,
            ReferencedFrameOfReferenceUID=slices[0].FrameOfReferenceUID,
            ROIName=name[:64],
            ROIGenerationAlgorithm="AUTOMATIC",
        )
        content.StructureSetROISequence.append(structure)
        contours = [each for plane, header in zip(mask, slices, strict=True) for each in _contours(plane, header)]
        drawn = _items(ReferencedROINumber=number, ROIDisplayColor=list(rgb(colour)))
        if contours:
            drawn.ContourSequence = contours
        content.ROIContourSequence.append(drawn)
        content.RTROIObservationsSequence.append(
            _items(ObservationNumber=number, ReferencedROINumber=number, RTROIInterpretedType="", ROIInterpreter="")
        )
    content.file_meta.MediaStorageSOPClassUID = content.SOPClassUID
    content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID
    # With explicit VRs, contours of more than 64 kB could only be written as VR UN, which viewers may not read.
    content.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    with written_whole(path) as temporary:
        content.save_as(temporary, enforce_file_format=True)


def _described(source: "Dataset") -> "Dataset":
    """Return an object with the patient and study of a slice and a description of its own."""
    from importlib.metadata import version

    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import generate_uid

    from autocrossdim.data.writing.series import PATIENT, STUDY

    content = Dataset()
    content.file_meta = FileMetaDataset()
    for keyword in ("SpecificCharacterSet", "StudyInstanceUID", "FrameOfReferenceUID", *PATIENT, *STUDY):
        setattr(content, keyword, source.get(keyword))
    now = datetime.now()
    content.Modality, content.SeriesInstanceUID, content.SeriesNumber = "RTSTRUCT", generate_uid(), SERIES_NUMBER
    content.SeriesDescription = "autocrossdim contours"
    content.OperatorsName = content.PositionReferenceIndicator = ""
    content.Manufacturer = content.ManufacturerModelName = "autocrossdim"
    content.SoftwareVersions, content.InstanceNumber = version("autocrossdim"), 1
    content.StructureSetLabel, content.ApprovalStatus = "AUTOCROSSDIM", "UNAPPROVED"
    content.StructureSetDate, content.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    return content


def _referenced(slices: "Sequence[Dataset]") -> "Dataset":
    """Return the reference to the frame, the study, the series and all of its slices."""
    first = slices[0]
    images = [_items(ReferencedSOPClassUID=s.SOPClassUID, ReferencedSOPInstanceUID=s.SOPInstanceUID) for s in slices]
    series = _items(SeriesInstanceUID=first.SeriesInstanceUID, ContourImageSequence=images)
    study = _items(
        ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.1",  # detached study management, as the standard demands
        ReferencedSOPInstanceUID=first.StudyInstanceUID,
        RTReferencedSeriesSequence=[series],
    )
    return _items(FrameOfReferenceUID=first.FrameOfReferenceUID, RTReferencedStudySequence=[study])


def _contours(plane: "np.ndarray", header: "Dataset") -> "list[Dataset]":
    """Return the closed contours of a mask (Y, X) in a slice."""
    import numpy as np
    from skimage import measure

    row = np.array(header.ImageOrientationPatient[:3], float)
    column = np.array(header.ImageOrientationPatient[3:], float)
    between_rows, between_columns = (float(mm) for mm in header.PixelSpacing)
    image = _items(ReferencedSOPClassUID=header.SOPClassUID, ReferencedSOPInstanceUID=header.SOPInstanceUID)
    contours = []
    for outline in measure.find_contours(np.pad(plane, 1).astype(float), 0.5):
        y, x = outline[:-1].T - 1  # the last point is the first one
        points = (
            np.array(header.ImagePositionPatient, float)
            + x[:, None] * between_columns * row
            + y[:, None] * between_rows * column
        )
        contours.append(
            _items(
                ContourImageSequence=[image],
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(points),
                ContourData=[f"{mm:.4f}" for mm in points.ravel()],
            )
        )
    return contours


def _items(**elements: Any) -> "Dataset":
    from pydicom import Dataset

    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
