"""The optional packages for DICOM objects: whether they are installed, and how strictly pydicom checks values."""

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
    """Read and copy values that violate the standard, such as anonymised identifiers, without warnings.

    The warnings would quote the values. pydicom interprets a value when it is first used, not when the file is read.
    """
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
