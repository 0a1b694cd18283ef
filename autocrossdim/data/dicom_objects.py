"""The optional packages for DICOM objects such as segmentations: whether they are there, and how strict pydicom is."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from autocrossdim.system.errors import UserError


def require_packages(user: str) -> None:
    """Check that the packages for DICOM objects are installed.

    Args:
        user: What needs them, for the message.

    Raises:
        UserError: They are not.
    """
    try:
        import highdicom  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"{user} needs packages that are not installed ({error}). "
            "Install them with: pip install 'autocrossdim[dicom]'"
        ) from error


@contextmanager
def lenient() -> Iterator[None]:
    """Read and copy values against the standard, such as identifiers changed by anonymising, without warnings."""
    from pydicom import config

    settings = config.settings
    before = settings.reading_validation_mode, settings.writing_validation_mode
    settings.reading_validation_mode = settings.writing_validation_mode = config.IGNORE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        settings.reading_validation_mode, settings.writing_validation_mode = before
