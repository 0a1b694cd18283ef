"""One file per format. Importing this package registers all of them."""

from autocrossdim.data.writing.formats import bids, dicom_seg, image, rtstruct, seg_nrrd
from autocrossdim.data.writing.registry import FORMATS, OutputFormat
from autocrossdim.system.errors import UserError

__all__ = ["DEFAULT", "HELP", "bids", "dicom_seg", "find", "image", "rtstruct", "seg_nrrd"]

DEFAULT = "image"
HELP = ", ".join(f"{name} ({FORMATS[name].summary})" for name in sorted(FORMATS, key=lambda name: name != DEFAULT))
"""Name and summary of every format, the default first."""


def find(name: str) -> OutputFormat:
    """Return the format called `name`.

    Raises:
        UserError: There is none.
    """
    if name not in FORMATS:
        raise UserError(f"--format {name}: no such format. Use one of {', '.join(FORMATS)}.")
    return FORMATS[name]
