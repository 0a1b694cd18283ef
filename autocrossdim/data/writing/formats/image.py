"""The format of the training images, such as `.nii.gz`: label values on the grid of the image."""

from pathlib import Path

from autocrossdim.data.writing.registry import Finished, output_format


@output_format("image", "the format of the training images")
def write(finished: Finished, path: Path) -> None:
    """Write the label values."""
    from autocrossdim.data.images import write_label

    write_label(finished.label, finished.geometry, path)
