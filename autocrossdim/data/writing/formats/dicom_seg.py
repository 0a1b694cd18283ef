"""DICOM-SEG: one object per series, with a segment per label or region on the frames of the series."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocrossdim.data.writing.registry import Finished, output_format
from autocrossdim.records.codes import TISSUE, Code, LabelCode

if TYPE_CHECKING:
    import numpy as np

    from autocrossdim.data.dataset import Case

SERIES_NUMBER = 300  # scanners number from 1; our choice


def _check(cases: "Sequence[Case]") -> None:
    from autocrossdim.data.writing.series import require_series

    require_series(cases, format="dicom-seg")


def _file(case: str, ending: str) -> str:
    return f"{case}.dcm"


@output_format("dicom-seg", "DICOM-SEG on the frames of a DICOM series", file=_file, check=_check)
def write(finished: Finished, path: Path) -> None:
    """Write a DICOM-SEG object.

    Raises:
        UserError: The series lacks an element that the object has to contain.
    """
    from importlib.metadata import version

    import highdicom
    from pydicom.sr.codedict import codes

    from autocrossdim.data.dicom_objects import lenient
    from autocrossdim.data.writing.series import read_headers
    from autocrossdim.records.colours import colours, rgb
    from autocrossdim.system.files import written_whole

    program = version("autocrossdim")
    algorithm = highdicom.AlgorithmIdentificationSequence("autocrossdim", codes.DCM.ArtificialIntelligence, program)
    segments = []
    for number, (name, colour) in enumerate(zip(finished.labels.names, colours(finished.labels), strict=True), start=1):
        category, kind = _concepts(finished.codes.get(name))
        segments.append(
            highdicom.seg.SegmentDescription(
                number,
                name[:64],  # the standard allows no more
                category,
                kind,
                "AUTOMATIC",
                algorithm,
                display_color=highdicom.color.CIELabColor.from_rgb(*rgb(colour)),
            )
        )
    with lenient():
        content = highdicom.seg.Segmentation(
            source_images=read_headers(finished.case.images[0]),
            pixel_array=_pixels(finished),
            segmentation_type="BINARY",
            segment_descriptions=segments,
            series_instance_uid=highdicom.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer="autocrossdim",
            manufacturer_model_name="autocrossdim",
            software_versions=program,
            device_serial_number="0",
            content_label="AUTOCROSSDIM",
            series_description="autocrossdim segmentation",
        )
        content.ContentCreatorName = ""  # required, but may be empty; highdicom leaves it out
        with written_whole(path) as temporary:
            content.save_as(temporary)


def _pixels(finished: Finished) -> "np.ndarray":
    """Return the numbers of the segments (Z, Y, X), or for regions, which may overlap, a mask of each (Z, Y, X, S)."""
    import numpy as np

    if finished.labels.has_regions:
        return np.moveaxis(finished.labels.to_regions(finished.label), 0, -1)
    return finished.labels.to_index(finished.label).astype(np.uint16)


def _concepts(code: LabelCode | None) -> tuple[Any, Any]:
    """Return the category and the type of a segment."""
    from highdicom.sr import CodedConcept

    def concept(each: Code) -> CodedConcept:
        return CodedConcept(value=each.value, scheme_designator=each.scheme, meaning=each.meaning)

    return (concept(TISSUE), concept(TISSUE)) if code is None else (concept(code.category), concept(code))
