from pathlib import Path

import numpy as np
import pytest

from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.images import Geometry, write_array, write_label
from autocrossdim.data.phantoms import ANISOTROPIC_SPACING, chambers, write_dataset
from autocrossdim.preprocessing.fingerprint import extract
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def make(folder: Path) -> Path:
    write_dataset(folder, lambda r: chambers(r, (5, 40, 40)), {"background": 0, "a": 1, "b": 2}, ANISOTROPIC_SPACING)
    return folder


def test_numbers_of_a_made_up_dataset(tmp_path: Path) -> None:
    dataset = load_dataset(make(tmp_path / "Dataset901_X"))
    fingerprint, report = extract(dataset, processes=1)
    assert report.faults == []
    assert fingerprint.dims == 3
    np.testing.assert_allclose(fingerprint.median_spacing(), ANISOTROPIC_SPACING)
    assert [case.shape for case in fingerprint.cases] == [(5, 40, 40)] * 6
    assert all(sum(case.label_voxels.values()) == 5 * 40 * 40 for case in fingerprint.cases)
    assert 0 < fingerprint.intensities[0].mean < 1


def test_workers_give_the_same_numbers_and_json_keeps_them(tmp_path: Path) -> None:
    dataset = load_dataset(make(tmp_path / "Dataset901_X"))
    fingerprint, _ = extract(dataset, processes=1)
    assert extract(dataset, processes=2)[0] == fingerprint
    fingerprint.write(tmp_path / "fingerprint.json")
    assert Fingerprint.read(tmp_path / "fingerprint.json") == fingerprint


def test_voxels_to_ignore_are_not_foreground(tmp_path: Path) -> None:
    raw = make(tmp_path / "Dataset901_X")
    content = read_json(raw / "dataset.json")
    write_json(raw / "dataset.json", {**content, "labels": {"background": 0, "a": 1, "b": 2, "ignore": 3}})
    geometry = Geometry((2, 4, 4), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 3)
    image, label = np.zeros((2, 4, 4)), np.zeros((2, 4, 4), dtype=np.uint8)
    image[0], label[0] = 1e6, 3
    image[1], label[1] = 1.0, 1
    write_array(image, geometry, raw / "imagesTr" / "case_00_0000.nii.gz")
    write_label(label, geometry, raw / "labelsTr" / "case_00.nii.gz")
    assert extract(load_dataset(raw), 1)[0].intensities[0].max < 10


def test_a_dataset_without_any_foreground_is_refused(tmp_path: Path) -> None:
    raw = make(tmp_path / "Dataset901_X")
    content = read_json(raw / "dataset.json")
    write_json(raw / "dataset.json", {**content, "labels": {"background": 0, "a": 1, "b": 2, "c": 3}})
    for file in (raw / "labelsTr").iterdir():
        geometry = Geometry((5, 40, 40), ANISOTROPIC_SPACING, (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 3)
        write_label(np.zeros((5, 40, 40), dtype=np.uint8), geometry, file)
    with pytest.raises(UserError, match="foreground"):
        extract(load_dataset(raw), 1)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real datasets are not beside this checkout")
@pytest.mark.parametrize(
    ("name", "dims", "cases", "spacing"),
    [
        ("Dataset004_Hippocampus", 3, 32, (1, 1, 1)),
        ("Dataset045_SunnybrookLV", 3, 6, (10, 1.367, 1.367)),
        ("Dataset046_SunnybrookSlices", 2, 188, (1, 1, 1)),
    ],
)
def test_real_datasets(name: str, dims: int, cases: int, spacing: tuple[float, ...]) -> None:
    fingerprint, _ = extract(load_dataset(SHARED / name), processes=2)
    assert (fingerprint.dims, len(fingerprint.cases)) == (dims, cases)
    np.testing.assert_allclose(fingerprint.median_spacing(), spacing, rtol=1e-3)


def test_a_damaged_file_is_named_with_its_remedy(tmp_path: Path) -> None:
    write_json(tmp_path / "fingerprint.json", {"version": 1, "dims": 3})
    with pytest.raises(UserError, match=r"fingerprint\.json: not a fingerprint. Plan again with --overwrite"):
        Fingerprint.read(tmp_path / "fingerprint.json")
