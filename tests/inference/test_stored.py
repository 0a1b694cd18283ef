"""Averaging stored probabilities gives what averaging in memory gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autocrossdim import api
from autocrossdim.data.images import Geometry, read_label, write_array, write_label
from autocrossdim.inference.predictor import Model, Predictor
from autocrossdim.networks.build import build_network
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import write_json

SHAPE, SPACING = (9, 20, 18), (3.0, 1.0, 1.2)
EXCLUSIVE = {"labels": {"background": 0, "a": 1, "b": 300}}
REGIONS = {"labels": {"background": 0, "whole": [1, 2], "part": 2}, "regions_class_order": [1, 2]}


def random_model(plan: Any, seed: int) -> Model:
    torch.manual_seed(seed)
    network = build_network(plan.network_plan(plan.configuration()), None).eval()
    return Model(plan, plan.configuration(), [network])


@pytest.fixture(params=[EXCLUSIVE, REGIONS], ids=["exclusive", "regions"])
def stored(request: pytest.FixtureRequest, make_plan: Callable[..., Any], tmp_path: Path) -> Any:
    """Two configurations' folders of one segmented image, the dataset, and what both give in memory."""
    raw = tmp_path / "Dataset001_Tiny"
    entry = {"images": ["a_0000.nii.gz"], "label": "a.nii.gz"}
    write_json(
        raw / "dataset.json",
        {"channel_names": {"0": "MR"}, "numTraining": 1, "file_ending": ".nii.gz", "dataset": {"a": entry}}
        | request.param,
    )
    labels = Labels.from_dataset_json(request.param["labels"], request.param.get("regions_class_order"))
    geometry = Geometry(SHAPE, SPACING, (5, 6, 7), (0, 1, 0, 1, 0, 0, 0, 0, -1), 3)
    write_array(np.random.default_rng(0).normal(size=SHAPE), geometry, raw / "a_0000.nii.gz")
    plans = [make_plan(dims, (3.0, 1.5, 1.5), labels=labels, patch_size=(8, 16, 16)[-dims:]) for dims in (2, 3)]
    models = [random_model(plan, seed) for seed, plan in enumerate(plans)]
    folders = [tmp_path / "omnia", tmp_path / "dx"]
    for model, folder in zip(models, folders, strict=True):
        image, alone = Predictor([model], False).predict_files([raw / "a_0000.nii.gz"], keep_probabilities=True)
        write_label(alone.label, image.geometry, folder / "a.nii.gz")
        np.savez_compressed(folder / "a.npz", probabilities=alone.probabilities)
    image, together = Predictor(models, False).predict_files([raw / "a_0000.nii.gz"], keep_probabilities=True)
    return raw, folders, together


def test_stored_probabilities_give_the_labels_of_an_ensemble_in_memory(stored: Any, tmp_path: Path) -> None:
    raw, folders, together = stored
    (path,) = api.ensemble(folders, tmp_path / "both", raw)
    found, geometry = read_label(path)
    assert geometry == read_label(folders[0] / "a.nii.gz")[1]
    probabilities = np.sort(together.probabilities.astype(float), axis=0)
    # float16 cannot tell what is equally probable to three digits
    rounded = np.abs(together.probabilities.astype(float) - 0.5).min(axis=0) < 2e-3
    tied = rounded | (probabilities[-1] - probabilities[-2] < 2e-3)
    assert tied.mean() < 0.1
    np.testing.assert_array_equal(found[~tied], together.label[~tied])
    alone = [read_label(folder / "a.nii.gz")[0] for folder in folders]
    assert all((found != label).any() for label in alone), "an ensemble that is one of its members shows nothing"


def test_what_does_not_fit_is_named(stored: Any, tmp_path: Path) -> None:
    raw, folders, _ = stored
    with pytest.raises(UserError, match="two folders or more"):
        api.ensemble(folders[:1], tmp_path / "both", raw)
    with pytest.raises(UserError, match="holds what is to be averaged"):
        api.ensemble(folders, folders[0], raw)
    (folders[1] / "b.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"omnia: no b\.npz"):
        api.ensemble(folders, tmp_path / "both", raw)
    (folders[1] / "b.npz").unlink()
    np.savez(folders[1] / "a.npz", probabilities=np.zeros((9, *SHAPE), np.float16))
    with pytest.raises(UserError, match=r"dx/a\.npz: 9 × 9 × 20 × 18 probabilities"):
        api.ensemble(folders, tmp_path / "both", raw)
    (folders[1] / "a.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        api.ensemble(folders, tmp_path / "both", raw)
    assert not list((tmp_path / "both").glob("*.nii.gz"))
