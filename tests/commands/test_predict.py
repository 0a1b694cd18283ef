"""What `predict` refuses before a model is applied or jobs are submitted."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocrossdim
from autocrossdim.commands.predict import present
from autocrossdim.system.errors import UserError


@pytest.fixture
def submitted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the jobs that would have been submitted to SLURM."""
    names: list[str] = []

    def submit(jobs: Mapping[str, Any], *_: Any) -> None:
        names.extend(jobs)

    monkeypatch.setattr("autocrossdim.jobs.slurm.submit", submit)
    return names


def test_jobs_are_submitted_only_for_images_that_fit_the_model_and_the_format(
    submitted: list[str], write_model: Callable[..., Path], write_image: Callable[..., Path], tmp_path: Path
) -> None:
    model, images = write_model(tmp_path / "model"), tmp_path / "images"
    image = np.zeros((4, 5, 6), np.float32)
    write_image(images / "sub-01_T1w_0000.nii.gz", image)

    def predict(output: Path = tmp_path / "refused", **options: Any) -> None:
        autocrossdim.predict(model, images, output, slurm="partition=any", **options)

    predict(tmp_path / "out", format="bids", jobs=2)
    assert submitted == ["predict 0 of 2", "predict 1 of 2"]
    submitted.clear()
    write_image(images / "case_01_0000.nii.gz", image)
    with pytest.raises(UserError, match="the name case_01 is not that of a BIDS image"):
        predict(format="bids")
    write_image(images / "case_01_0001.nii.gz", image)
    with pytest.raises(UserError, match="the model takes 1 channel"):
        predict()
    assert submitted == []
    assert not (tmp_path / "refused").exists()


def test_no_jobs_are_submitted_that_would_refuse_the_model_its_options_or_existing_results(
    submitted: list[str], write_model: Callable[..., Path], write_image: Callable[..., Path], tmp_path: Path
) -> None:
    model, images, out = write_model(tmp_path / "model"), tmp_path / "images", tmp_path / "out"
    write_image(images / "case_01_0000.nii.gz", np.zeros((4, 5, 6), np.float32))
    autocrossdim.predict(model, images, out)

    def predict(output: Path = out, **options: Any) -> None:
        autocrossdim.predict(model, images, output, slurm="partition=any", **options)

    predict()
    assert submitted == ["predict 0 of 1"]
    submitted.clear()
    with pytest.raises(UserError, match=r"case_01\.nii\.gz: made by another model .*\(different: mirroring\)"):
        predict(mirroring=False)
    with pytest.raises(UserError, match=r"image_statistics=1\.5: must be at most 1"):
        predict(tmp_path / "new", image_statistics=1.5)
    with pytest.raises(UserError, match="this is the directory of the images"):
        predict(images)
    assert submitted == []
    assert not (tmp_path / "new").exists()


def test_probabilities_need_segmentations_that_ensemble_can_read(tmp_path: Path) -> None:
    message = "--probabilities cannot be combined with --format bids: `ensemble` takes the grid"
    with pytest.raises(UserError, match=message):
        autocrossdim.predict("any", tmp_path, tmp_path / "out", format="bids", probabilities=True)


@pytest.mark.parametrize(("format", "part", "lines"), [("image", "0/1", 2), ("image", "0/2", 1), ("bids", "0/1", 1)])
def test_the_next_command_evaluates_what_is_complete(tmp_path: Path, format: str, part: str, lines: int) -> None:
    said = list(present([tmp_path / "a.nii.gz"], model="m.acd", output=tmp_path, format=format, part=part, slurm=None))
    assert said[0] == f"{tmp_path}: 1 segmentation."
    assert said[1:] == [f"Next: autocrossdim evaluate {tmp_path} REFERENCES --dataset DATASET"][: lines - 1]


def test_the_next_command_names_the_dataset_that_was_the_model(make_dataset: Callable[..., Path]) -> None:
    raw = make_dataset()
    options: dict[str, Any] = {"format": "image", "part": "0/1", "slurm": None}
    said = list(present([], model=str(raw), output=Path("out"), **options))
    assert said[-1] == f"Next: autocrossdim evaluate out REFERENCES --dataset {raw}"


def test_a_dataset_of_a_model_can_be_given_by_its_number(
    make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raw = make_dataset()
    monkeypatch.setenv("AUTOCROSSDIM_RAW", str(raw.parent))
    number = int(raw.name[len("Dataset") :].partition("_")[0])
    with pytest.raises(UserError, match="plan"):  # found, but not planned
        autocrossdim.Predictor.load(number, work=tmp_path / "work")
