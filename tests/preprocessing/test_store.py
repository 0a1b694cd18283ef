import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autocrossdim.api import plan_and_preprocess
from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.images import read_image, read_label
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.plan import Plan, PlanOptions
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.errors import UserError


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan, Store]:
    folder = tmp_path_factory.mktemp("raw")
    raw = folder / "Dataset901_Nodules"
    labels = {"background": 0, "organ": 1, "nodule": 2}
    write_dataset(raw, lambda random: nodules(random, (20, 28, 24)), labels, ISOTROPIC_SPACING, training=3)
    plan = plan_and_preprocess(raw, folder / "work", options=PlanOptions(memory=1))
    return raw, plan, Store(Workspace.of(raw.name, folder / "work").preprocessed("dx"))


def test_a_stored_case_is_the_normalised_raw_case(planned: tuple[Path, Plan, Store]) -> None:
    raw, _, store = planned
    case = load_dataset(raw).training_cases()[0]
    stored = store.open(case.name)
    image = read_image(case.images).array
    np.testing.assert_allclose(stored.image[:], (image - image.mean()) / image.std(), atol=1e-4)
    assert case.label is not None
    np.testing.assert_array_equal(stored.label[:], read_label(case.label)[0])


def test_a_patch_is_read_without_the_case(planned: tuple[Path, Plan, Store]) -> None:
    stored = planned[2].open("case_00")
    np.testing.assert_array_equal(stored.image[:, 3:9, 5:6, 2:20], stored.image[:][:, 3:9, 5:6, 2:20])


def test_remembered_voxels_are_of_their_class(planned: tuple[Path, Plan, Store]) -> None:
    stored = planned[2].open("case_00")
    label = stored.label[:]
    assert set(stored.voxels) == {"organ", "nodule"}
    assert (label[tuple(stored.voxels["organ"].T)] == 1).all()
    assert (label[tuple(stored.voxels["nodule"].T)] == 2).all()


def test_the_geometry_of_the_raw_image_comes_back(planned: tuple[Path, Plan, Store]) -> None:
    raw, _, store = planned
    case = load_dataset(raw).training_cases()[0]
    assert store.record(case.name).original_geometry() == read_image(case.images).geometry


def test_cases_of_another_plan_are_not_kept(planned: tuple[Path, Plan, Store], tmp_path: Path) -> None:
    _, plan, _ = planned
    store = Store(tmp_path / "store")
    configuration = plan.configuration("dx")
    store.prepare(plan, configuration)
    (store.root / "case_00.json").write_text("{}")
    store.prepare(plan, configuration)
    assert store.has("case_00")
    store.prepare(plan, configuration.model_copy(update={"spacing": (2.0, 2.0, 2.0)}))
    assert not store.has("case_00")


@pytest.mark.parametrize("file", ["case_01.b2nd", "case_01_label.b2nd", "case_01_voxels.npz"])
@pytest.mark.parametrize("damage", [lambda path: os.truncate(path, 100), Path.unlink])
def test_a_damaged_case_is_named_with_its_remedy(
    planned: tuple[Path, Plan, Store], tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    store = Store(tmp_path / "store")
    shutil.copytree(planned[2].root, store.root)
    damage(store.root / file)
    with pytest.raises(UserError, match=r"case_01\.json.* damaged. Delete this file"):
        store.open("case_01")


@pytest.mark.parametrize("content", ["{", "{}"])
def test_a_damaged_record_is_named_with_its_remedy(tmp_path: Path, content: str) -> None:
    (tmp_path / "case_01.json").write_text(content)
    with pytest.raises(UserError, match=r"case_01\.json.* damaged. Delete this file"):
        Store(tmp_path).record("case_01")


def test_what_an_interrupted_cleaning_leaves_is_not_taken_for_cases_of_the_new_plan(
    planned: tuple[Path, Plan, Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plan, _ = planned
    store = Store(tmp_path / "store")
    store.prepare(plan, plan.configuration("dx"))
    for name in ("case_00", "zoe"):
        (store.root / f"{name}.json").write_text("{}")
    other = plan.configuration("dx").model_copy(update={"spacing": (2.0, 2.0, 2.0)})

    def killed_after_one(path: Path) -> None:
        path.rename(path.with_suffix(".gone"))
        raise KeyboardInterrupt

    with monkeypatch.context() as interrupted, pytest.raises(KeyboardInterrupt):
        interrupted.setattr(Path, "unlink", killed_after_one)
        store.prepare(plan, other)
    store.prepare(plan, other)
    assert not store.has("case_00")
    assert not store.has("zoe")
