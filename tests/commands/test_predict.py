"""What `predict` refuses before a model is applied or jobs are submitted."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocrossdim
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

    def predict(**options: Any) -> None:
        autocrossdim.predict(model, images, tmp_path / "out", slurm="partition=any", **options)

    predict(format="bids", jobs=2)
    assert submitted == ["predict 0 of 2", "predict 1 of 2"]
    submitted.clear()
    write_image(images / "case_01_0000.nii.gz", image)
    with pytest.raises(UserError, match="the name case_01 is not that of a BIDS image"):
        predict(format="bids")
    write_image(images / "case_01_0001.nii.gz", image)
    with pytest.raises(UserError, match="the model takes 1 channel"):
        predict()
    assert submitted == []
    assert not (tmp_path / "out").exists()


def test_probabilities_need_segmentations_that_ensemble_can_read(tmp_path: Path) -> None:
    message = "--probabilities cannot be combined with --format bids: `ensemble` takes the grid"
    with pytest.raises(UserError, match=message):
        autocrossdim.predict("any", tmp_path, tmp_path / "out", format="bids", probabilities=True)
