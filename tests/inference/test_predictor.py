from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from autocrossdim.api import plan_and_preprocess
from autocrossdim.data.images import Geometry, write_array
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset
from autocrossdim.inference.predictor import Model, Predictor
from autocrossdim.networks.build import build_network
from autocrossdim.records.plan import PlanOptions
from autocrossdim.system.errors import UserError

SHAPE = (10, 12, 14)


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    """A model of one channel at 1 mm that was never trained."""
    folder = tmp_path_factory.mktemp("predictor")
    raw = folder / "Dataset901_Nodules"
    write_dataset(raw, lambda r: nodules(r, (20, 28, 24)), {"background": 0, "a": 1, "b": 2}, ISOTROPIC_SPACING, 2, 0)
    plan = plan_and_preprocess(raw, folder / "work", options=PlanOptions(memory=1), processes=1)
    configuration = plan.configuration("dx")
    network = build_network(plan.network_plan(configuration), None).eval()
    return Predictor([Model(plan, configuration, [network])], mirroring=False)


def write(path: Path, array: np.ndarray, spacing: Sequence[float] = (1, 1, 1)) -> Path:
    z, y, x = (float(mm) for mm in spacing)
    geometry = Geometry(SHAPE, (z, y, x), (5, 6, 7), (0, 1, 0, 1, 0, 0, 0, 0, -1), 3)
    write_array(array, geometry, path)
    return path


@pytest.mark.parametrize("spacing", [(1, 1, 1), (4, 0.5, 0.5), (1e-3, 1e-3, 1e-3)])
def test_a_segmentation_lies_on_its_images_own_grid(
    predictor: Predictor, tmp_path: Path, spacing: Sequence[float]
) -> None:
    path = write(tmp_path / "a_0000.nii.gz", np.random.default_rng(0).normal(size=SHAPE), spacing)
    image, segmentation = predictor.predict_files([path])
    assert segmentation.label.shape == image.geometry.shape == SHAPE
    assert set(np.unique(segmentation.label)) <= {0, 1, 2}


@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e39])
def test_an_image_that_would_come_back_as_background_is_refused(
    predictor: Predictor, tmp_path: Path, value: float
) -> None:
    array = np.random.default_rng(0).normal(size=SHAPE)
    array[2, 3, 4] = value
    with np.errstate(over="ignore"):
        path = write(tmp_path / "a_0000.nii.gz", array)
    with pytest.raises(UserError, match=r"a_0000\.nii\.gz: 1 of 1680 voxels are NaN or infinite"):
        predictor.predict_files([path])


def test_another_number_of_channels_names_the_file(predictor: Predictor, tmp_path: Path) -> None:
    paths = [write(tmp_path / f"a_000{c}.nii.gz", np.ones(SHAPE)) for c in (0, 1)]
    with pytest.raises(UserError, match=r"a_0000\.nii\.gz: .*needs .* 1 channel"):
        predictor.predict_files(paths)


@pytest.mark.parametrize("spacing", [(1, 1, 1e4), (1e3, 1e3, 1e3)])
def test_a_spacing_that_cannot_be_meant_is_told(predictor: Predictor, tmp_path: Path, spacing: Sequence[float]) -> None:
    path = write(tmp_path / "a_0000.nii.gz", np.random.default_rng(0).normal(size=SHAPE), spacing)
    with pytest.raises(UserError, match=r"a_0000\.nii\.gz: a spacing of .* is it in mm"):
        predictor.predict_files([path])


def test_asking_how_sure_it_is_changes_no_label(predictor: Predictor) -> None:
    array = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    folds = Predictor(
        [Model(predictor.plan, predictor.models[0].configuration, predictor.models[0].networks * 2)], False
    )
    plain = folds(array, (1, 1, 1), keep_probabilities=True)
    asked = folds(array, (1, 1, 1), keep_probabilities=True, uncertainty=True)
    assert plain.uncertainty is None
    np.testing.assert_array_equal(asked.label, plain.label)
    assert asked.probabilities is not None
    assert plain.probabilities is not None
    np.testing.assert_allclose(asked.probabilities, plain.probabilities, atol=1e-3)
    assert asked.uncertainty is not None
    assert asked.uncertainty.entropy.shape == SHAPE
    # The two folds are one and the same network.
    assert asked.uncertainty.disagreement is not None
    assert not asked.uncertainty.disagreement.any()
