"""Training cases of any orientation are preprocessed alike."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

import autocrossdim
from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.images import read_image
from autocrossdim.preprocessing.fingerprint import common_orientation, extract, reoriented
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.workspace import Workspace

UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


def turn(dataset: Path, case: str, code: str) -> None:
    """Rewrite a case in another orientation; the headers stay correct."""
    for file in (dataset / "imagesTr" / f"{case}_0000.nii.gz", dataset / "labelsTr" / f"{case}.nii.gz"):
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(file)), code), str(file))


def mixed(make_dataset: Callable[..., Path], name: str) -> Path:
    dataset = make_dataset(name, direction=UPRIGHT)
    turn(dataset, "b", "RAI")
    turn(dataset, "d", "PIR")
    return dataset


def test_mixed_orientations_are_preprocessed_as_one(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    stores = []
    for dataset in (make_dataset("Dataset001_Same", direction=UPRIGHT), mixed(make_dataset, "Dataset002_Mixed")):
        plan = autocrossdim.plan_and_preprocess(
            dataset, work=tmp_path / "work", encoder="test_efficientnet", memory=1, trial=False, processes=1
        )
        assert plan.orientation == "SPL"
        workspace = Workspace.of(dataset.name, tmp_path / "work")
        stores.append(Store(workspace.preprocessed(plan.decision.configuration)))
    for name in "abcde":
        same, turned = (store.open(name) for store in stores)
        assert np.allclose(same.image[:], turned.image[:], atol=1e-6), name
        assert np.array_equal(same.label[:], turned.label[:]), name


def test_measurements_are_turned_with_their_image(make_dataset: Callable[..., Path]) -> None:
    dataset = load_dataset(mixed(make_dataset, "Dataset002_Mixed"))
    fingerprint, report = extract(dataset, 1)
    assert common_orientation(fingerprint) == "SPL"
    assert "SPL (3 cases)" in report.notes[0]
    upright = reoriented(fingerprint, "SPL")
    assert len({case.shape for case in upright.cases}) == 1
    assert len({case.spacing for case in upright.cases}) == 1
    same, _ = extract(load_dataset(make_dataset("Dataset001_Same", direction=UPRIGHT)), 1)
    for turned, reference in zip(upright.cases, same.cases, strict=True):
        assert np.allclose(turned.labels[1].centroid, reference.labels[1].centroid), turned.name


def test_a_nifti_file_without_a_coordinate_system_has_no_orientation(
    make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    file = make_dataset(direction=UPRIGHT, ending=".nii") / "imagesTr" / "a_0000.nii"
    assert read_image([file]).geometry.orientation == "SPL"
    content = bytearray(file.read_bytes())
    content[252:256] = b"\0\0\0\0"  # qform_code and sform_code
    file.write_bytes(content)
    assert read_image([file]).geometry.orientation is None


@pytest.mark.parametrize(
    ("space", "code"),
    [
        ("space: left-posterior-superior\nspace directions: (1,0,0) (0,2,0) (0,0,3)", "SPL"),
        ("space: RAS\nspace directions: (1,0,0) (0,2,0) (0,0,3)", "SAR"),
        ("space dimension: 3\nspace directions: (1,0,0) (0,2,0) (0,0,3)", None),
        ("spacings: 1 2 3", None),
    ],
)
def test_a_nrrd_file_without_an_anatomical_space_has_no_orientation(
    tmp_path: Path, space: str, code: str | None
) -> None:
    file = tmp_path / "a.nrrd"
    head = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 3 4\nencoding: raw\nkinds: domain domain domain\n{space}\n\n"
    file.write_bytes(head.encode() + bytes(24))
    geometry = read_image([file]).geometry
    assert geometry.spacing == (3.0, 2.0, 1.0)
    assert geometry.orientation == code


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1\nAnatomicalOrientation = RAI\n", "SPL"),  # as SimpleITK writes it
        ("TransformMatrix = 1 0 0 0 1 0 0 0 1\nAnatomicalOrientation = ???\n", "SPL"),
        ("Orientation = 0 1 0 0 0 1 1 0 0\n", "LSP"),
        ("Rotation = 0 1 0 0 0 1 1 0 0\n", "LSP"),
        ("AnatomicalOrientation = RAI\n", "SPL"),
        ("AnatomicalOrientation = ASL\n", None),  # ITK reads the axes as RAI
        ("AnatomicalOrientation = ???\nOffset = 1 2 3\n", None),
        ("", None),
    ],
)
def test_an_mha_file_without_directions_has_no_orientation(tmp_path: Path, lines: str, code: str | None) -> None:
    file = tmp_path / "a.mha"
    head = "ObjectType = Image\nNDims = 3\n" + lines + "ElementSpacing = 1 2 3\nDimSize = 2 3 4\n"
    file.write_bytes(f"{head}ElementType = MET_UCHAR\nElementDataFile = LOCAL\n".encode() + bytes(24))
    geometry = read_image([file]).geometry
    assert geometry.spacing == (3.0, 2.0, 1.0)
    assert geometry.orientation == code


def test_a_colour_nrrd_file_without_an_anatomical_space_has_no_orientation(tmp_path: Path) -> None:
    file = tmp_path / "a.nrrd"
    head = "NRRD0004\ntype: uint8\ndimension: 4\nsizes: 3 2 3 4\nencoding: raw\nspace dimension: 3\n"
    axes = "kinds: RGB-color domain domain domain\nspace directions: none (1,0,0) (0,2,0) (0,0,3)\n"
    file.write_bytes(f"{head}{axes}\n".encode() + bytes(72))
    assert read_image([file]).geometry.orientation is None
