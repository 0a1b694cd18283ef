"""Names and colours of the label values, in the formats of 3D Slicer, ITK-SNAP and BIDS."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

import autocrossdim
from autocrossdim.data.geometry import same_place
from autocrossdim.data.images import read_image, read_label
from autocrossdim.data.writing.formats import HELP
from autocrossdim.data.writing.names import named_values
from autocrossdim.data.writing.registry import FORMATS
from autocrossdim.inference.predictor import Predictor
from autocrossdim.records.colours import PALETTE, rgb
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError

NAMES = {1: "Gewebe (größer)", 2: "Gewebe (größer) + Kern"}


def test_the_help_lists_every_format_the_default_first(command: Callable[..., Any]) -> None:
    assert HELP.startswith("image (")
    printed = command("predict", "--help").stdout
    assert all(name in HELP and name in printed for name in FORMATS)


def test_values_have_the_names_and_colours_of_the_report() -> None:
    classes = Labels.from_dataset_json({"background": 0, "b": 7, "a": 2})
    assert [(v.value, v.name, v.colour) for v in named_values(classes)] == [
        (2, "a", rgb(PALETTE[0])),
        (7, "b", rgb(PALETTE[1])),
    ]


def test_itk_snap_gets_a_description_of_the_labels(nifti: Path, predictor: Predictor, tmp_path: Path) -> None:
    autocrossdim.predict("any", nifti, tmp_path / "out")
    lines = (tmp_path / "out" / "itksnap_labels.txt").read_text(encoding="utf-8").splitlines()
    # As ITK-SNAP reads a line: seven numbers and a name in quotes.
    found = [re.fullmatch(r' *(\d+) +(\d+) +(\d+) +(\d+) +([\d.]+) +([01]) +([01]) +"([^"]*)"', x) for x in lines[1:]]
    assert lines[0].startswith("#")
    assert {int(match[1]): match[8] for match in found if match} == {0: "Clear Label", **NAMES}
    assert tuple(int(found[2][n]) for n in (2, 3, 4)) == rgb(PALETTE[1])  # type: ignore[index]


def test_slicer_gets_named_segments_on_the_grid_of_the_image(nifti: Path, predictor: Predictor, tmp_path: Path) -> None:
    path, _ = autocrossdim.predict("any", nifti, tmp_path / "out", format="seg.nrrd")
    assert path.name == "sub-01_T1w.seg.nrrd"
    source = nifti / "sub-01_T1w_0000.nii.gz"
    label, geometry = read_label(path)
    np.testing.assert_array_equal(label, predictor(source).label)
    assert same_place(geometry, read_image([source]).geometry) is None
    header = path.read_bytes().split(b"\n\n")[0].decode()
    fields = dict(line.split(":=", 1) for line in header.splitlines() if ":=" in line)
    assert {int(fields[f"Segment{n}_LabelValue"]): fields[f"Segment{n}_Name"] for n in (0, 1)} == NAMES
    assert fields["Segment0_Color"] == "0.337255 0.705882 0.913725"
    assert fields["Segment1_Extent"] == "0 23 0 19 0 6"
    assert fields["Segmentation_MasterRepresentation"] == "Binary labelmap"


def test_a_2d_image_becomes_a_slice_for_slicer(
    predictor: Predictor, write_image: Callable[..., Path], tmp_path: Path
) -> None:
    image = write_image(tmp_path / "a.nii.gz", np.eye(9, dtype=np.float32) * 99, (0.5, 0.25))
    segmentation = predictor(image)
    path = predictor.write(segmentation, tmp_path / "out", name="a", format="seg.nrrd")
    assert sitk.ReadImage(str(path)).GetSize() == (9, 9, 1)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(path))), segmentation.label)


def test_bids_derivatives_have_names_a_table_and_a_description(
    nifti: Path, predictor: Predictor, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    paths = autocrossdim.predict("any", nifti, out, format="bids")
    assert [str(path.relative_to(out).as_posix()) for path in paths] == [
        "sub-01/anat/sub-01_dseg.nii.gz",
        "sub-02/ses-a/anat/sub-02_ses-a_dseg.nii.gz",
    ]
    np.testing.assert_array_equal(read_label(paths[0])[0], predictor(nifti / "sub-01_T1w_0000.nii.gz").label)
    with (out / "dseg.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert {int(row["index"]): row["name"] for row in rows} == {0: "background", **NAMES}
    assert rows[1]["color"] == PALETTE[0]
    description = json.loads((out / "dataset_description.json").read_text(encoding="utf-8"))
    assert description["DatasetType"] == "derivative"
    assert description["GeneratedBy"][0]["Name"] == "autocrossdim"
    times = [path.stat().st_mtime_ns for path in paths]
    assert [path.stat().st_mtime_ns for path in autocrossdim.predict("any", nifti, out, format="bids")] == times


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("case_01", "the name case_01 is not that of a BIDS image, such as sub-01_ses-1_T1w"),
        ("sub-01_T2w", "of sub-01_T1w and sub-01_T2w would have the same name"),
    ],
)
def test_other_names_are_refused(
    name: str, message: str, nifti: Path, predictor: Predictor, write_image: Callable[..., Path], tmp_path: Path
) -> None:
    write_image(nifti / f"{name}_0000.nii.gz", np.zeros((3, 4, 5), np.float32))
    with pytest.raises(UserError, match=message):
        autocrossdim.predict("any", nifti, tmp_path / "out", format="bids")
    assert not (tmp_path / "out").exists()
