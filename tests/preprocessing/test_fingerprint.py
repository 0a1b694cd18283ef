import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import write_array, write_label
from autocrossdim.data.phantoms import ANISOTROPIC_SPACING, chambers, write_dataset
from autocrossdim.preprocessing.fingerprint import changed_cases, extract
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json

GEOMETRY = Geometry((5, 40, 40), ANISOTROPIC_SPACING, (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 3)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """A dataset of phantoms, written a while ago."""
    folder = tmp_path / "Dataset901_Chambers"
    write_dataset(folder, lambda r: chambers(r, (5, 40, 40)), {"background": 0, "a": 1, "b": 2}, ANISOTROPIC_SPACING)
    for file in folder.rglob("*.nii.gz"):
        time = file.stat().st_mtime_ns - 100 * 10**9
        os.utime(file, ns=(time, time))
    return folder


def test_phantoms_are_measured(raw: Path) -> None:
    dataset = load_dataset(raw)
    fingerprint, report = extract(dataset, processes=1)
    assert report.faults == []
    assert fingerprint.dims == 3
    np.testing.assert_allclose(fingerprint.median_spacing(), ANISOTROPIC_SPACING)
    assert [case.shape for case in fingerprint.cases] == [(5, 40, 40)] * 6
    assert all(sum(case.label_voxels.values()) == 5 * 40 * 40 for case in fingerprint.cases)
    assert 0 < fingerprint.intensities[0].mean < 1


def test_workers_give_the_same_numbers_and_json_preserves_them(raw: Path, tmp_path: Path) -> None:
    dataset = load_dataset(raw)
    fingerprint, _ = extract(dataset, processes=1)
    assert extract(dataset, processes=2)[0] == fingerprint
    fingerprint.write(tmp_path / "fingerprint.json")
    assert Fingerprint.read(tmp_path / "fingerprint.json") == fingerprint


def test_voxels_with_the_ignore_label_are_not_foreground(raw: Path) -> None:
    content = read_json(raw / "dataset.json")
    write_json(raw / "dataset.json", {**content, "labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}})
    image, label = np.zeros(GEOMETRY.shape), np.zeros(GEOMETRY.shape, dtype=np.uint8)
    image[0], label[0] = 1e6, 3
    image[1], label[1] = 1.0, 1
    write_array(image, GEOMETRY, raw / "imagesTr" / "case_00_0000.nii.gz")
    write_label(label, GEOMETRY, raw / "labelsTr" / "case_00.nii.gz")
    assert extract(load_dataset(raw), 1)[0].intensities[0].max < 10


def test_every_case_has_the_same_weight_in_the_intensities_of_the_foreground(raw: Path) -> None:
    """As in nnU-Net: a case with one large structure does not decide on the normalisation of all others."""
    for number, file in enumerate(sorted((raw / "labelsTr").iterdir())):
        image, label = np.full(GEOMETRY.shape, 100.0 * number + 1), np.zeros(GEOMETRY.shape, dtype=np.uint8)
        label[0, 0, : 2 + number] = 1
        if number == 5:
            label[:] = 1
        write_label(label, GEOMETRY, file)
        write_array(image, GEOMETRY, raw / "imagesTr" / f"case_{number:02d}_0000.nii.gz")
    (found,) = extract(load_dataset(raw), 1)[0].intensities
    values = 100 * np.arange(6) + 1
    assert (found.mean, found.std) == (pytest.approx(values.mean()), pytest.approx(values.std()))
    assert (found.percentile_00_5, found.percentile_99_5) == (1, 501)
    assert found.median in (201, 301)


def test_a_dataset_without_any_foreground_is_refused(raw: Path) -> None:
    content = read_json(raw / "dataset.json")
    write_json(raw / "dataset.json", {**content, "labels": {"background": 0, "a": 1, "b": 2, "c": 3}})
    for file in (raw / "labelsTr").iterdir():
        write_label(np.zeros(GEOMETRY.shape, dtype=np.uint8), GEOMETRY, file)
    with pytest.raises(UserError, match="no label file contains a foreground label"):
        extract(load_dataset(raw), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dims", "cases", "spacing"),
    [
        ("Dataset004_Hippocampus", 3, 32, (1, 1, 1)),
        ("Dataset045_SunnybrookLV", 3, 6, (10, 1.367, 1.367)),
        ("Dataset046_SunnybrookSlices", 2, 188, (1, 1, 1)),
    ],
)
def test_real_datasets(real_data: Path, name: str, dims: int, cases: int, spacing: tuple[float, ...]) -> None:
    fingerprint, _ = extract(load_dataset(real_data / name), processes=2)
    assert (fingerprint.dims, len(fingerprint.cases)) == (dims, cases)
    np.testing.assert_allclose(fingerprint.median_spacing(), spacing, rtol=1e-3)


def test_cases_whose_files_changed_are_named(raw: Path) -> None:
    dataset = load_dataset(raw)
    fingerprint, _ = extract(dataset, processes=1)
    assert changed_cases(dataset, fingerprint) == []
    write_label(np.ones(GEOMETRY.shape, dtype=np.uint8), GEOMETRY, raw / "labelsTr" / "case_03.nii.gz")
    write_array(np.ones(GEOMETRY.shape), GEOMETRY, raw / "imagesTr" / "case_01_0000.nii.gz")
    assert changed_cases(dataset, fingerprint) == ["case_01", "case_03"]
    measured, _ = extract(dataset, processes=1)
    assert measured.cases[3].label_voxels == {1: 5 * 40 * 40}
    assert changed_cases(dataset, measured) == []


def test_a_changed_spacing_file_changes_the_case(make_dataset: Callable[..., Path]) -> None:
    dataset = load_dataset(make_dataset(ending=".tif"))
    fingerprint, _ = extract(dataset, processes=1)
    for part in ("imagesTr", "labelsTr"):
        (dataset.path / part / "b.json").write_text('{"spacing": [3, 1, 1]}')
    assert changed_cases(dataset, fingerprint) == ["b"]


def test_a_copied_dataset_is_unchanged(raw: Path, tmp_path: Path) -> None:
    fingerprint, _ = extract(load_dataset(raw), processes=1)
    copied = shutil.copytree(raw, tmp_path / "copied", copy_function=shutil.copyfile)
    assert changed_cases(load_dataset(copied), fingerprint) == []


def test_a_fingerprint_without_versions_of_files_is_outdated(raw: Path) -> None:
    dataset = load_dataset(raw)
    fingerprint, _ = extract(dataset, processes=1)
    content = json.loads(fingerprint.model_dump_json())
    for case in content["cases"]:
        del case["source"]
    assert len(changed_cases(dataset, Fingerprint.model_validate(content))) == 6


def test_a_damaged_file_is_named_with_its_remedy(tmp_path: Path) -> None:
    write_json(tmp_path / "fingerprint.json", {"version": 1, "dims": 3})
    with pytest.raises(UserError, match=r"fingerprint\.json: not a fingerprint \(.*\)\. Plan again with --overwrite"):
        Fingerprint.read(tmp_path / "fingerprint.json")


def test_background_of_slices_that_were_not_annotated_is_not_counted(raw: Path) -> None:
    image, label = np.random.default_rng(0).random(GEOMETRY.shape), np.zeros(GEOMETRY.shape, dtype=np.uint8)
    label[1, :5], label[3, :5] = 1, 2
    write_array(image, GEOMETRY, raw / "imagesTr" / "case_00_0000.nii.gz")
    write_label(label, GEOMETRY, raw / "labelsTr" / "case_00.nii.gz")
    before = extract(load_dataset(raw), 1)[0].cases[0]
    assert (before.label_voxels[0], before.annotated_slices) == (5 * 1600 - 400, None)
    write_json(raw / "dataset.json", {**read_json(raw / "dataset.json"), "unannotated_slices": "empty"})
    measured = extract(load_dataset(raw), 1)[0].cases[0]
    assert measured.label_voxels == {0: 2 * 1600 - 400, 1: 200, 2: 200}
    assert measured.annotated_slices == (2, 5)
    assert measured.labels == before.labels
