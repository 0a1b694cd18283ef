"""Averaging stored probabilities gives the same labels as averaging in memory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autocrossdim
from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import read_label, write_array, write_label
from autocrossdim.inference.model import Model
from autocrossdim.inference.predictor import Predictor
from autocrossdim.inference.stored import by_calibration, write_probabilities
from autocrossdim.networks.build import build_network
from autocrossdim.records.labels import Labels
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import write_json
from autocrossdim.system.lock import LOCK, locked

SHAPE, SPACING = (9, 20, 18), (3.0, 1.0, 1.2)
EXCLUSIVE = {"labels": {"background": 0, "a": 1, "b": 300}}
REGIONS = {"labels": {"background": 0, "whole": [1, 2], "part": 2}, "regions_class_order": [1, 2]}


def random_model(plan: Any, seed: int) -> Model:
    torch.manual_seed(seed)
    network = build_network(plan.network_plan(plan.configuration()), None).eval()
    return Model(plan, plan.configuration(), [network])


@pytest.fixture(params=[EXCLUSIVE, REGIONS], ids=["exclusive", "regions"])
def stored(request: pytest.FixtureRequest, make_plan: Callable[..., Any], tmp_path: Path) -> Any:
    """Return a dataset, one image as segmented by two configurations on disk, and by both in memory."""
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
        alone = Predictor([model], mirroring=False)(raw / "a_0000.nii.gz", probabilities=True)
        write_label(alone.label, alone.geometry, folder / "a.nii.gz")
        write_probabilities(folder / "a.npz", alone.probabilities, labels, calibrated=False)
    together = Predictor(models, mirroring=False)(raw / "a_0000.nii.gz", probabilities=True)
    return raw, folders, together


def test_stored_probabilities_give_the_same_labels_as_an_ensemble_in_memory(stored: Any, tmp_path: Path) -> None:
    raw, folders, together = stored
    (path,) = autocrossdim.ensemble(folders, tmp_path / "both", dataset=raw)
    found, geometry = read_label(path)
    assert geometry == read_label(folders[0] / "a.nii.gz")[1]
    probabilities = np.sort(together.probabilities.astype(float), axis=0)
    # In float16, labels that are equally probable to three digits are tied.
    rounded = np.abs(together.probabilities.astype(float) - 0.5).min(axis=0) < 2e-3
    tied = rounded | (probabilities[-1] - probabilities[-2] < 2e-3)
    assert tied.mean() < 0.1
    np.testing.assert_array_equal(found[~tied], together.label[~tied])
    alone = [read_label(folder / "a.nii.gz")[0] for folder in folders]
    assert all((found != label).any() for label in alone), "the test needs members that differ from their ensemble"


def test_calibrated_and_other_probabilities_are_not_mixed_silently(
    stored: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw, folders, together = stored
    autocrossdim.ensemble(folders, tmp_path / "neither", dataset=raw)
    assert "not calibrated" not in capfd.readouterr().err
    write_probabilities(folders[1] / "a.npz", together.probabilities, load_dataset(raw).labels, calibrated=True)
    autocrossdim.ensemble(folders, tmp_path / "one", dataset=raw)
    assert (
        f"{folders[0]}: the probabilities are not calibrated, but those in {folders[1]} are" in capfd.readouterr().err
    )


def test_directories_that_do_not_say_whether_they_are_calibrated_are_left_out(stored: Any, tmp_path: Path) -> None:
    _, (one, other), together = stored
    unknown = tmp_path / "nnunet"
    unknown.mkdir()
    np.savez(unknown / "a.npz", probabilities=together.probabilities)
    assert by_calibration([one, other, unknown], "a") == ([], [one, other])


def test_a_directory_that_is_given_twice_is_named(
    stored: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    raw, folders, _ = stored
    autocrossdim.ensemble(folders, tmp_path / "both", dataset=raw)
    assert "more than once" not in capsys.readouterr().err
    same = folders[0].parent / "." / ".." / folders[0].parent.name / folders[0].name
    autocrossdim.ensemble([*folders, same], tmp_path / "both", dataset=raw)
    said = " ".join(capsys.readouterr().err.split())
    assert f"{folders[0]}: given more than once, so it weighs more in the average" in said
    assert str(folders[1]) not in said


def test_an_ensemble_has_the_formats_of_predict(stored: Any, tmp_path: Path) -> None:
    raw, folders, _ = stored
    (expected,) = autocrossdim.ensemble(folders, tmp_path / "both", dataset=raw)
    (path,) = autocrossdim.ensemble(folders, tmp_path / "both", dataset=raw, format="seg.nrrd")
    assert path.name == "a.seg.nrrd"
    np.testing.assert_array_equal(read_label(path)[0], read_label(expected)[0])
    assert (tmp_path / "both" / "volumes.csv").read_text(encoding="utf-8").count("\na,") == 2
    with pytest.raises(UserError, match="--format dicom-seg: a is not a DICOM series"):
        autocrossdim.ensemble(folders, tmp_path / "both", dataset=raw, format="dicom-seg")


def test_directories_that_do_not_fit_together_are_named(stored: Any, tmp_path: Path) -> None:
    raw, folders, _ = stored
    with pytest.raises(UserError, match="at least two directories"):
        autocrossdim.ensemble(folders[:1], tmp_path / "both", dataset=raw)
    with pytest.raises(UserError, match="is one of the directories to average"):
        autocrossdim.ensemble(folders, folders[0], dataset=raw)
    with pytest.raises(UserError, match="this is a file name"):
        autocrossdim.ensemble(folders, tmp_path / "a.nii.gz", dataset=raw)
    assert not (tmp_path / "a.nii.gz").exists()
    (folders[1] / "b.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"omnia: 1 case of the other directories missing, b\.npz"):
        autocrossdim.ensemble(folders, tmp_path / "both", dataset=raw)
    (folders[1] / "b.npz").unlink()
    np.savez(folders[1] / "a.npz", probabilities=np.zeros((9, *SHAPE), np.float16))
    with pytest.raises(UserError, match=r"dx/a\.npz: probabilities of shape 9 × 9 × 20 × 18"):
        autocrossdim.ensemble(folders, tmp_path / "both", dataset=raw)
    (folders[1] / "a.npz").write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        autocrossdim.ensemble(folders, tmp_path / "both", dataset=raw)
    assert not list((tmp_path / "both").glob("*.nii.gz"))


def test_probabilities_of_other_labels_are_refused(stored: Any, tmp_path: Path) -> None:
    """As many labels under exchanged names: an average would mix structures without any sign of it."""
    raw, folders, _ = stored
    labels = load_dataset(raw).labels
    exchanged = dict(zip(reversed(labels.names), labels.foreground.values(), strict=True))
    with np.load(folders[1] / "a.npz") as content:
        values = content["probabilities"]
    write_probabilities(
        folders[1] / "a.npz", values, labels.model_copy(update={"foreground": exchanged}), calibrated=False
    )
    with pytest.raises(UserError, match=r"dx/a\.npz: probabilities of the labels .*, but dataset\.json declares"):
        autocrossdim.ensemble(folders, tmp_path / "both", dataset=raw)
    np.savez(folders[1] / "a.npz", probabilities=values)  # as nnU-Net and earlier versions write it
    assert len(autocrossdim.ensemble(folders, tmp_path / "both", dataset=raw)) == 1


def test_a_directory_that_another_process_writes_to_is_refused(
    stored: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw, folders, _ = stored
    output = tmp_path / "both"
    monkeypatch.setattr("autocrossdim.system.lock.SECONDS_TO_END", 0.0)
    with (
        locked(output / LOCK, output),
        pytest.raises(UserError, match=r"both: process \d+ on .* is writing to it"),
    ):
        autocrossdim.ensemble(folders, output, dataset=raw)
    assert not list(output.glob("*.nii.gz"))
    autocrossdim.ensemble(folders, output, dataset=raw)
    assert not (output / LOCK).exists()
