from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from autocrossdim.records.best import KeepLargest
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.origin import Origin, remove_origin
from autocrossdim.records.run_state import RunState

MADE = Origin(networks={"dx/fold_0": "a" * 64}, mirroring=True)


def test_an_origin_is_stored_per_case(tmp_path: Path) -> None:
    MADE.write(tmp_path, "case_1")
    assert Origin.read(tmp_path, "case_1") == MADE
    assert Origin.read(tmp_path, "case_2") is None
    remove_origin(tmp_path, "case_1")
    remove_origin(tmp_path, "case_1")
    assert Origin.read(tmp_path, "case_1") is None


def test_what_changes_no_label_matters_only_to_probabilities_and_uncertainty() -> None:
    calibrated = MADE.model_copy(update={"temperature": 1.5})
    assert MADE.differences(calibrated, calibration=False) == []
    assert MADE.differences(calibrated, calibration=True) == ["calibration"]
    assert MADE.differences(MADE.model_copy(update={"image_statistics": 0.2}), calibration=False) == [
        "image statistics"
    ]
    step = KeepLargest(name="block", values=(1,))
    assert MADE.differences(MADE.model_copy(update={"postprocessing": (step,)}), calibration=False) == [
        "post-processing"
    ]


def test_a_network_is_told_from_another_by_its_weights(make_plan: Callable[..., Any]) -> None:
    def digest(**network: torch.Tensor) -> str:
        checkpoint = Checkpoint(
            plan=make_plan(),
            configuration="dx",
            fold=0,
            split={},
            network=network,
            settings={},
            provenance={},
            run=RunState(),
        )
        return checkpoint.network_digest

    weights = {"a": torch.ones(2, 3), "count": torch.tensor(4), "empty": torch.ones(0)}
    assert digest(**weights) == digest(**dict(reversed(weights.items())))
    assert digest(**weights) == digest(**weights | {"a": torch.ones(3, 2).T})
    assert digest(**weights) != digest(**weights | {"count": torch.tensor(5)})
