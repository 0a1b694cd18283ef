"""The headers of the segmented DICOM series that are copied to the result.

Only elements that a DICOM object of the same patient and study must contain are copied: those of type 1 and 2 in the
Patient and General Study modules. Names of institutions, descriptions, ages, comments and private elements are left
out.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocrossdim.data.dataset import Case
from autocrossdim.data.dicom_objects import lenient, require_packages
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import reading
from autocrossdim.system.text import shown_path

if TYPE_CHECKING:
    from pydicom import Dataset

PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
"""Elements of the Patient module that every object has to contain, empty if unknown."""
STUDY = ("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber")
"""Elements of the General Study module that every object has to contain, empty if unknown."""
REQUIRED = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality"),
    *("Rows", "Columns", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient"),
)
"""Elements that identify a slice and its place."""
OPTIONAL = ("SliceThickness", "SpacingBetweenSlices", "PositionReferenceIndicator")


def require_series(cases: Sequence[Case], *, format: str) -> None:
    """Check that the packages are installed and that every case is a DICOM series.

    Args:
        cases: Cases to segment.
        format: Name of the format, for messages.

    Raises:
        UserError: They are not.
    """
    require_packages(f"--format {format}")
    for case in cases:
        with reading():
            if len(case.images) != 1 or not case.images[0].is_dir():
                raise UserError(
                    f"--format {format}: {shown_path(case.name)} is not a DICOM series. Give -i directories of DICOM "
                    "slices, or leave --format out."
                )


@lenient()
def read_headers(folder: Path) -> "list[Dataset]":
    """Return the headers of a series, reduced to what may be copied, in the order of the array's slices.

    Args:
        folder: Directory of the series.

    Raises:
        UserError: The series cannot be read, has several frames in one file, or lacks an element that is required.
    """
    from pydicom import dcmread

    from autocrossdim.data.dicom import series_files

    headers = []
    for file in series_files(folder):
        try:
            content = dcmread(file, stop_before_pixels=True)
        except Exception as error:  # pydicom raises exceptions of every kind on damaged files
            raise UserError(f"{file}: cannot be read as DICOM ({error}). Copy the file again.") from error
        if int(content.get("NumberOfFrames") or 1) > 1:
            raise UserError(f"{file}: several frames in one file. Convert it to single slices, or use --format image.")
        headers.append(_reduced(file, content))
    for header in headers:  # anonymisation may have given each slice another one
        header.FrameOfReferenceUID = headers[0].FrameOfReferenceUID
    return headers


def _reduced(file: str, content: "Dataset") -> "Dataset":
    from pydicom import Dataset

    reduced = Dataset()
    reduced.SpecificCharacterSet = "ISO_IR 192"  # UTF-8, which names of labels may need; texts were decoded above
    for keyword in (*REQUIRED, *OPTIONAL):
        value = content.get(keyword)
        if value not in (None, ""):
            setattr(reduced, keyword, value)
        elif keyword in REQUIRED:
            raise UserError(f"{file}: {keyword} is missing, but the result has to refer to it. Use --format image.")
    for keyword in (*PATIENT, *STUDY):
        setattr(reduced, keyword, _valid(keyword, content.get(keyword)))
    return reduced


def _valid(keyword: str, value: Any) -> Any:
    """Return a value; empty if it is not a valid date or time, such as 20120000 after anonymisation."""
    text = "" if value is None else str(value)
    if keyword.endswith("Date"):
        try:
            datetime.strptime(text, "%Y%m%d")
        except ValueError:
            return ""
    if keyword.endswith("Time") and not re.fullmatch(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?", text):
        return ""
    return text
