"""Stored cases hold the preprocessed arrays, and know which files they were made from."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.images import read_image, read_label, write_array, write_label
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset
from autocrossdim.preprocessing.dataset import preprocess_dataset
from autocrossdim.preprocessing.store import SETTINGS, Store
from autocrossdim.records import sources
from autocrossdim.records.labels import Labels
from autocrossdim.records.normalization import Normalization
from autocrossdim.records.plan import Plan
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json

LABELS = {"background": 0, "organ": 1, "nodule": 2}
NAMES = ["case_00", "case_01", "case_02"]


@pytest.fixture(scope="session")
def plan(make_plan: Callable[..., Plan]) -> Plan:
    return make_plan(labels=Labels.from_dataset_json(LABELS), normalization=(Normalization(scheme="zscore"),))


def preprocess(raw: Path, plan: Plan, store: Store) -> list[str]:
    return preprocess_dataset(load_dataset(raw), plan, plan.configuration(), store, processes=1)


def write_phantoms(raw: Path) -> None:
    write_dataset(raw, lambda random: nodules(random, (20, 28, 24)), LABELS, ISOTROPIC_SPACING, training=3, test=0)
    for file in raw.rglob("*.nii.gz"):
        age(file)


def age(file: Path, seconds: int = 100) -> None:
    """Move a file's time to the past: times of files that have just been written are not relied on."""
    status = file.stat()
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns - seconds * 10**9))


@pytest.fixture(scope="module")
def preprocessed(tmp_path_factory: pytest.TempPathFactory, plan: Plan) -> tuple[Path, Store]:
    """A dataset and its store; tests that change either take `copied`."""
    folder = tmp_path_factory.mktemp("phantoms")
    raw, store = folder / "Dataset901_Nodules", Store(folder / "store")
    write_phantoms(raw)
    assert preprocess(raw, plan, store) == []
    return raw, store


@pytest.fixture
def copied(preprocessed: tuple[Path, Store], tmp_path: Path) -> tuple[Path, Store]:
    raw, store = preprocessed
    shutil.copytree(raw, tmp_path / raw.name)
    shutil.copytree(store.root, tmp_path / "store")
    return tmp_path / raw.name, Store(tmp_path / "store")


# --- arrays


def test_a_stored_case_is_the_normalised_raw_case(preprocessed: tuple[Path, Store]) -> None:
    raw, store = preprocessed
    case = load_dataset(raw).training_cases()[0]
    stored = store.open(case.name)
    image = read_image(case.images).array
    np.testing.assert_allclose(stored.image[:], (image - image.mean()) / image.std(), atol=1e-4)
    assert case.label is not None
    np.testing.assert_array_equal(stored.label[:], read_label(case.label)[0])


def test_a_patch_can_be_read_alone(preprocessed: tuple[Path, Store]) -> None:
    stored = preprocessed[1].open("case_00")
    np.testing.assert_array_equal(stored.image[:, 3:9, 5:6, 2:20], stored.image[:][:, 3:9, 5:6, 2:20])


def test_stored_positions_are_voxels_of_their_class(preprocessed: tuple[Path, Store]) -> None:
    stored = preprocessed[1].open("case_00")
    label = stored.label[:]
    assert set(stored.voxels) == {"organ", "nodule"}
    assert (label[tuple(stored.voxels["organ"].T)] == 1).all()
    assert (label[tuple(stored.voxels["nodule"].T)] == 2).all()


def test_the_geometry_of_the_raw_image_is_recorded(preprocessed: tuple[Path, Store]) -> None:
    raw, store = preprocessed
    case = load_dataset(raw).training_cases()[0]
    assert store.record(case.name).original_geometry() == read_image(case.images).geometry


def test_cases_whose_names_extend_each_other_are_kept_apart(tmp_path: Path, plan: Plan) -> None:
    """Case `a_label` once overwrote the label of case `a`, and case `store` the settings of the store."""
    raw, store = tmp_path / "Dataset902_Names", Store(tmp_path / "store")
    write_phantoms(raw)
    for old, new in zip(NAMES, ["a", "a_label", "store"], strict=True):
        (raw / "imagesTr" / f"{old}_0000.nii.gz").rename(raw / "imagesTr" / f"{new}_0000.nii.gz")
        (raw / "labelsTr" / f"{old}.nii.gz").rename(raw / "labelsTr" / f"{new}.nii.gz")
    preprocess(raw, plan, store)
    assert store.names() == ["a", "a_label", "store"]
    for case in load_dataset(raw).training_cases():
        assert case.label is not None
        np.testing.assert_array_equal(store.open(case.name).label[:], read_label(case.label)[0])
    assert preprocess(raw, plan, store) == []


# --- other settings


def test_cases_of_another_plan_are_removed(copied: tuple[Path, Store], plan: Plan) -> None:
    _, store = copied
    store.prepare(plan, plan.configuration())
    assert store.names() == NAMES
    store.prepare(plan, plan.configuration().model_copy(update={"spacing": (2.0, 2.0, 2.0)}))
    assert store.names() == []


def test_an_interrupted_removal_is_completed(
    copied: tuple[Path, Store], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store = copied
    other = plan.configuration().model_copy(update={"spacing": (2.0, 2.0, 2.0)})

    def interrupted_after_one(path: Path) -> None:
        path.rename(path.with_suffix(".gone"))
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "unlink", interrupted_after_one)
        store.prepare(plan, other)
    assert store.names()
    store.prepare(plan, other)
    assert store.names() == []


# --- changed source files


def relabel(raw: Path, name: str) -> Path:
    """Turn every nodule of a case into organ."""
    file = raw / "labelsTr" / f"{name}.nii.gz"
    label, geometry = read_label(file)
    write_label(np.minimum(label, 1), geometry, file)
    return file


def test_a_corrected_label_is_preprocessed_again_and_no_other_case(
    copied: tuple[Path, Store], plan: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, store = copied
    before = {name: store.source_hash(name) for name in NAMES}
    untouched = (store.root / "case_00.image.b2nd").stat().st_mtime_ns
    label = relabel(raw, "case_01")
    assert preprocess(raw, plan, store) == ["case_01"]
    assert "1 case changed since preprocessing for dx: case_01. Preprocessing it again." in capsys.readouterr().err
    np.testing.assert_array_equal(store.open("case_01").label[:], read_label(label)[0])
    assert (store.root / "case_00.image.b2nd").stat().st_mtime_ns == untouched
    assert store.changed_since(before) == ["case_01"]
    assert preprocess(raw, plan, store) == []


def test_a_corrected_image_is_preprocessed_again(copied: tuple[Path, Store], plan: Plan) -> None:
    raw, store = copied
    file = raw / "imagesTr" / "case_02_0000.nii.gz"
    image = read_image([file])
    write_array(image.array[0, ::-1], image.geometry, file)
    before = store.open("case_02").image[:]
    assert preprocess(raw, plan, store) == ["case_02"]
    np.testing.assert_allclose(store.open("case_02").image[:], before[:, ::-1], atol=1e-5)


def test_a_change_of_the_same_size_within_the_clocks_resolution_is_noticed(tmp_path: Path, plan: Plan) -> None:
    raw, store = tmp_path / "Dataset902_New", Store(tmp_path / "store")
    write_dataset(raw, lambda random: nodules(random, (20, 28, 24)), LABELS, ISOTROPIC_SPACING, training=3, test=0)
    preprocess(raw, plan, store)  # within two seconds of the files' last change
    file = raw / "labelsTr" / "case_00.nii.gz"
    size, time = file.stat().st_size, file.stat().st_mtime_ns
    content = file.read_bytes()
    label, geometry = read_label(file)
    write_label(np.minimum(label, 1), geometry, file)
    # As long as before: gzip readers ignore zeros after the end.
    file.write_bytes(file.read_bytes().ljust(size, b"\0"))
    os.utime(file, ns=(time, time))
    assert file.stat().st_size == len(content)
    assert preprocess(raw, plan, store) == ["case_00"]


def test_unchanged_files_are_not_read(copied: tuple[Path, Store], plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    raw, store = copied
    read: list[object] = []
    digest = sources.file_digest

    def counted(file: Any, algorithm: Any) -> Any:
        read.append(file.name)
        return digest(file, algorithm)

    monkeypatch.setattr(sources, "file_digest", counted)
    assert preprocess(raw, plan, store) == []
    assert read == []
    file = raw / "imagesTr" / "case_00_0000.nii.gz"
    age(file, 50)  # a copy of the dataset has the same contents and other times
    assert preprocess(raw, plan, store) == []
    assert read == [str(file)]
    assert preprocess(raw, plan, store) == []
    assert read == [str(file)], "the new time is recorded"


def test_the_images_of_a_case_are_told_from_its_other_files(preprocessed: tuple[Path, Store]) -> None:
    _, store = preprocessed
    record, name = store.record("case_00"), "case_00"
    assert record.images == 1
    assert store.contents(name) == {store.image_hash(name), store.source_hash(name)}
    assert store.contents("missing") == frozenset()
    image, label = record.source
    spacing = image.model_copy(update={"name": "case_00.json"})
    cascade = {"source": (image, image, label, label, spacing, spacing), "has_previous_stage": True}
    assert record.model_copy(update=cascade).images == 2
    assert record.model_copy(update={"source": (image, spacing), "label_path": ""}).images == 1


def test_cases_removed_from_the_dataset_disappear(copied: tuple[Path, Store], plan: Plan) -> None:
    raw, store = copied
    before = {name: store.source_hash(name) for name in NAMES}
    (raw / "imagesTr" / "case_01_0000.nii.gz").unlink()
    (raw / "labelsTr" / "case_01.nii.gz").unlink()
    assert preprocess(raw, plan, store) == []
    assert store.names() == ["case_00", "case_02"]
    assert not list(store.root.glob("case_01*"))
    assert store.changed_since(before) == ["case_01"]


def test_cases_stored_without_the_versions_of_their_files_are_preprocessed_again(
    copied: tuple[Path, Store], plan: Plan, edit_json: Callable[..., None]
) -> None:
    raw, store = copied
    record = store.record("case_00").model_copy(update={"source": ()})
    (store.root / "case_00.json").write_text(record.model_dump_json())
    assert preprocess(raw, plan, store) == ["case_00"]


def test_an_interrupted_update_is_completed(
    copied: tuple[Path, Store], plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, store = copied
    label = relabel(raw, "case_01")

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Store, "_write_record", interrupted)
        preprocess(raw, plan, store)
    assert not store.has("case_01")
    preprocess(raw, plan, store)
    np.testing.assert_array_equal(store.open("case_01").label[:], read_label(label)[0])


# --- what was not annotated


def test_a_case_whose_annotated_labels_change_is_preprocessed_again(
    copied: tuple[Path, Store], plan: Plan, edit_json: Callable[..., None]
) -> None:
    raw, store = copied
    before = {name: store.source_hash(name) for name in NAMES}
    assert store.open("case_01").annotated_labels is None
    edit_json(raw, annotated_labels={"case_01": ["organ"]})
    assert preprocess(raw, plan, store) == ["case_01"]
    assert store.open("case_01").annotated_labels == ("organ",)
    assert store.changed_since(before) == ["case_01"]
    assert preprocess(raw, plan, store) == []
    edit_json(raw, annotated_labels=None)
    assert preprocess(raw, plan, store) == ["case_01"]
    assert store.changed_since(before) == []


def test_unannotated_slices_are_planned_and_preprocessed_again(
    copied: tuple[Path, Store], plan: Plan, edit_json: Callable[..., None]
) -> None:
    raw, store = copied
    assert store.open("case_00").annotated_slices is None
    edit_json(raw, unannotated_slices="empty")
    with pytest.raises(UserError, match="unannotated_slices changed since the dataset was planned"):
        preprocess(raw, plan, store)
    sparse = plan.model_copy(update={"labels": load_dataset(raw).labels})
    preprocess(raw, sparse, store)
    stored = store.open("case_00")
    labelled = np.flatnonzero((read_label(raw / "labelsTr" / "case_00.nii.gz")[0] > 0).any(axis=(1, 2)))
    assert 0 < len(labelled) < len(stored.label)
    assert stored.annotated_slices == tuple(labelled)
    assert (np.delete(stored.label[:], labelled, axis=0) == 3).all()
    assert (stored.label[:][labelled] <= 2).all()


# --- damage


@pytest.mark.parametrize("file", ["case_01.image.b2nd", "case_01.label.b2nd", "case_01.npz"])
@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 100), Path.unlink])
def test_a_damaged_case_is_named_with_its_remedy(
    copied: tuple[Path, Store], file: str, damage: Callable[[Path], None]
) -> None:
    _, store = copied
    damage(store.root / file)
    with pytest.raises(UserError, match=r"case_01\.json.* damaged. Delete this file"):
        store.open("case_01")


@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_damaged_record_is_named_with_its_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "case_01.json").write_text(content)
    with pytest.raises(UserError, match=r"case_01\.json.* damaged. Delete this file"):
        Store(tmp_path).record("case_01")


def test_intensities_that_are_not_used_do_not_make_stored_cases_outdated(plan: Plan, tmp_path: Path) -> None:
    """Each corrected label changes the statistics of the foreground, which only CT images are normalised by."""
    store, file = Store(tmp_path / "store"), tmp_path / "store" / "case_00.json"
    corrected = plan.model_copy(update={"normalization": (Normalization(scheme="zscore", mean=5.0),)})
    ct = plan.model_copy(update={"normalization": (Normalization(scheme="ct", mean=5.0),)})
    store.prepare(plan, plan.configuration())
    file.touch()
    store.prepare(corrected, plan.configuration())
    assert file.exists()
    settings = store.root / SETTINGS
    with_unused = {**read_json(settings), "normalization": [corrected.normalization[0].model_dump()]}
    write_json(settings, with_unused)  # as by earlier versions
    store.prepare(plan, plan.configuration())
    assert file.exists()
    store.prepare(ct, plan.configuration())
    assert not file.exists()
