"""Prediction by a network that thresholds the image, in every output format."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autocrossdim.inference.model import Model
from autocrossdim.inference.predictor import Predictor
from autocrossdim.records.codes import Codes, LabelCode
from autocrossdim.records.labels import Labels

LABELS = Labels.from_dataset_json({"background": 0, "Gewebe (größer)": [1, 2], "Kern": 2}, [1, 2])
"""Regions that overlap, with a name outside ASCII."""
CODES: Codes = {"Kern": LabelCode(value="10200004", meaning="Liver")}


class Thresholds(nn.Module):
    """Finds the outer region above 40, the inner one above 80."""

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor([40.0, 80.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x - self.level.view(1, 2, *[1] * (x.ndim - 2))


@pytest.fixture
def predictor(make_plan: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """A predictor at another spacing and orientation than its images; `autocrossdim.predict` uses it for any model."""
    plan = make_plan(3, (2.0, 1.0, 1.0), patch_size=(8, 8, 8), labels=LABELS, orientation="SAR")
    model = Model(plan, plan.configuration(), [Thresholds().eval()])
    made = Predictor([model], mirroring=False, codes=CODES)
    monkeypatch.setattr(Predictor, "load", lambda *_, **__: made)
    return made


@pytest.fixture
def blob() -> np.ndarray:
    """An image (Z, Y, X) of a bright ellipsoid off the centre."""
    z, y, x = np.indices((7, 20, 24))
    distance = ((z - 2.5) / 2.5) ** 2 + ((y - 7) / 5) ** 2 + ((x - 15) / 7) ** 2
    return np.clip(160 - 110 * distance, 0, None).astype(np.int16)


@pytest.fixture
def nifti(tmp_path: Path, blob: np.ndarray, write_image: Callable[..., Path]) -> Path:
    """A directory with the cases `sub-01_T1w` and `sub-02_ses-a_T1w`."""
    for name in ("sub-01_T1w", "sub-02_ses-a_T1w"):
        write_image(tmp_path / "images" / f"{name}_0000.nii.gz", blob, (2.0, 1.0, 0.75))
    return tmp_path / "images"
