"""The methods name what was recorded, and nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.fingerprint import CaseFingerprint, Fingerprint
from autocrossdim.records.run_state import RunState
from autocrossdim.records.workspace import Workspace
from autocrossdim.report.methods import methods


def test_checkpoints_are_described_and_missing_facts_left_out(make_plan: Callable[..., Any], tmp_path: Path) -> None:
    plan = make_plan()
    workspace = Workspace.of(plan.dataset, tmp_path)
    shape = (4, 5, 6)
    case = CaseFingerprint(name="a", shape=shape, cropped_shape=shape, spacing=(3, 1, 1), label_voxels={1: 2})
    fingerprint = Fingerprint(dims=3, cases=(case,), intensities=())

    def facts() -> dict[str, str]:
        _, rows = methods(plan, fingerprint, workspace, ["dx"], folds=2, complete=True, groups=1, best=None, unit="mm")
        return dict(rows)

    assert "dx: seed" not in facts()
    Checkpoint(
        plan=plan,
        configuration="dx",
        fold=1,
        split={"train": ["a"], "val": []},
        network={},
        settings={"seed": 7, "warmup": 0.1},
        provenance={"source": "timm/b0.ra", "licence": "apache-2.0", "sha256": "00"},
        run=RunState(epoch=3, step=30),
    ).write(workspace.fold("dx", 1).latest)
    found = facts()
    assert found["dx: network"].startswith("DX-Net (3D), encoder ")
    assert found["dx: folds described"] == "1"
    assert (found["dx: seed"], found["dx: optimiser steps per fold"]) == ("7", "30")
    assert found["dx: starting weights"] == "timm/b0.ra"
    assert found["dx: licence of the starting weights"] == "apache-2.0"
    assert found["dx: hyper-parameters"] == "warmup = 0.1"
    assert "dx: training minutes per fold" not in found
    assert found["Spacing (z, y, x), mm"] == "median 3 × 1 × 1; 3 × 1 × 1 to 3 × 1 × 1"
