"""The format of the training images, such as `.nii.gz`: label values on the grid of the image."""

from pathlib import Path

from autocrossdim.data.writing.registry import Finished, output_format
from autocrossdim.records.labels import Labels


def _beside(output: Path, labels: Labels) -> None:
    from autocrossdim.data.writing.names import write_itksnap

    write_itksnap(output, labels)


@output_format("image", "the format of the training images", beside=_beside)
def write(finished: Finished, path: Path) -> None:
    """Write the label values."""
    from autocrossdim.data.images import write_label

    write_label(finished.label, finished.geometry, path)
