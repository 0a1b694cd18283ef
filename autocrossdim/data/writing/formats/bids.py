"""BIDS derivatives: `sub-X/[ses-Y/]anat/sub-X_..._dseg.nii.gz`, `dseg.tsv` and `dataset_description.json`.

As in the section on segmentations of the Brain Imaging Data Structure 1.10. `dseg` replaces the suffix of the image.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autocrossdim.data.writing.registry import Finished, output_format
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import shown_path

if TYPE_CHECKING:
    from autocrossdim.data.dataset import Case

VERSION = "1.10.0"
_NAME = re.compile(r"(?P<sub>sub-[A-Za-z0-9]+)(_(?P<ses>ses-[A-Za-z0-9]+))?(_[a-z]+-[A-Za-z0-9+]+)*_[A-Za-z0-9]+")


def _file(case: str, ending: str) -> str:
    name = _NAME.fullmatch(case)
    if name is None:
        raise UserError(
            f"--format bids: the name {shown_path(case)} is not that of a BIDS image, such as sub-01_ses-1_T1w. "
            "Rename the image, or leave --format out."
        )
    folders = [name["sub"], *([name["ses"]] if name["ses"] else []), "anat"]
    return "/".join([*folders, f"{case.rpartition('_')[0]}_dseg.nii.gz"])


def _check(cases: "Sequence[Case]") -> None:
    files: dict[str, str] = {}
    for case in cases:
        other = files.setdefault(_file(case.name, ""), case.name)
        if other != case.name:
            raise UserError(
                f"--format bids: the segmentations of {other} and {case.name} would have the same name. Segment them "
                "into different directories."
            )


def _beside(output: Path, labels: Labels) -> None:
    from importlib.metadata import version

    from autocrossdim.data.writing.names import named_values
    from autocrossdim.system.files import write_json, write_text

    rows = ["index\tname\tcolor", "0\tbackground\t#000000"]
    for each in named_values(labels):
        rows.append(f"{each.value}\t{each.name}\t#{bytes(each.colour).hex()}")
    write_text(output / "dseg.tsv", "\n".join(rows) + "\n")
    write_text(output / ".bidsignore", "volumes*\nuncertainty*\norigin\nslurm\n")
    write_json(
        output / "dataset_description.json",
        {
            "Name": "Segmentations",
            "BIDSVersion": VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [{"Name": "autocrossdim", "Version": version("autocrossdim")}],
        },
    )


@output_format("bids", "BIDS derivatives, for images with BIDS names", file=_file, check=_check, beside=_beside)
def write(finished: Finished, path: Path) -> None:
    """Write the label values as NIfTI."""
    from autocrossdim.data.images import write_label

    write_label(finished.label, finished.geometry, path)
