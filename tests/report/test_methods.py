"""The methods name what was recorded, and nothing else."""

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.environment import Environment
from autocrossdim.records.fingerprint import CaseFingerprint, Fingerprint
from autocrossdim.records.run_state import RunState
from autocrossdim.records.workspace import Workspace
from autocrossdim.report.methods import LEARNING, methods


def test_a_single_split_is_not_called_a_cross_validation(make_plan: Callable[..., Any], tmp_path: Path) -> None:
    plan = make_plan()
    workspace = Workspace.of(plan.dataset, tmp_path)
    cases = [
        CaseFingerprint(name=name, shape=(4, 5, 6), cropped_shape=(4, 5, 6), spacing=(3, 1, 1), label_voxels={1: 2})
        for name in "abc"
    ]
    Checkpoint(
        plan=plan,
        configuration="dx",
        fold=0,
        split={"train": ["a", "b"], "val": ["c"]},
        network={},
        settings={},
        provenance={"source": "random"},
        run=RunState(epoch=3),
    ).write(workspace.fold("dx", 0).latest)
    fingerprint = Fingerprint(dims=3, cases=tuple(cases), intensities=())
    text, _ = methods(plan, fingerprint, workspace, ["dx"], folds=1, complete=True, groups=3, best=None, unit="mm")
    assert "was trained on 2 of these cases and evaluated on 1 other. The network was trained for 3 epochs" in text


def test_checkpoints_are_described_and_missing_facts_left_out(make_plan: Callable[..., Any], tmp_path: Path) -> None:
    plan = make_plan()
    workspace = Workspace.of(plan.dataset, tmp_path)
    shape = (4, 5, 6)
    case = CaseFingerprint(name="a", shape=shape, cropped_shape=shape, spacing=(3, 1, 1), label_voxels={1: 2})
    fingerprint = Fingerprint(dims=3, cases=(case,), intensities=())

    def described() -> tuple[str, dict[str, str]]:
        text, rows = methods(
            plan, fingerprint, workspace, ["dx"], folds=2, complete=True, groups=1, best=None, unit="mm"
        )
        return text, dict(rows)

    assert "dx: seed" not in described()[1]
    checkpoint = Checkpoint(
        plan=plan,
        configuration="dx",
        fold=1,
        split={"train": ["a"], "val": []},
        network={},
        settings={"seed": 7, "warmup": 0.1, "stage_empty": 0.2},
        provenance={"source": "timm/b0.ra", "licence": "apache-2.0", "sha256": "00"},
        run=RunState(epoch=3, step=3000),
    )
    checkpoint.write(workspace.fold("dx", 1).latest)
    text, found = described()
    assert text.endswith(
        f"Each fold was trained for 3 epochs (3,000 optimiser steps), starting from timm/b0.ra. {LEARNING.format('')}"
    )
    assert not {"dx: device, precision", "Command: train dx"} & found.keys()
    assert found["dx: network"] == "DX-Net (3D)"
    assert found["dx: folds described"] == "1"
    assert (found["dx: seed"], found["dx: optimiser steps per fold"]) == ("7", "3,000")
    assert found["dx: starting weights"] == "timm/b0.ra"
    assert found["dx: licence of the starting weights"] == "apache-2.0"
    assert found["dx: hyper-parameters"] == "warmup = 0.1"
    assert "dx: training minutes per fold" not in found
    assert found["Command: plan"] == f"autocrossdim plan_and_preprocess {plan.dataset}"
    assert "dx: unlabelled scans per fold" not in found
    replace(checkpoint, split={**checkpoint.split, "unlabelled": ["u", "v"]}).write(workspace.fold("dx", 0).latest)
    text, found = described()
    assert text.endswith(
        f"starting from timm/b0.ra, and also learned from 0 to 2 unlabelled scans. {LEARNING.format('')}"
    )
    assert found["dx: unlabelled scans per fold"] == "2, 0"
    workspace.fold("dx", 0).latest.unlink()
    assert found["Spacing (z, y, x), mm"] == "median 3 × 1 × 1; 3 × 1 × 1 to 3 × 1 × 1"

    used = Environment(
        device="Fast CPU",
        devices=1,
        precision="fp32",
        autocrossdim="0.2.0",
        torch="2.9.0",
        first_day=date(2026, 3, 31),
        last_day=date(2026, 4, 1),
    )
    replace(checkpoint, requested=["warmup"], environments=[used]).write(workspace.fold("dx", 1).latest)
    text, found = described()
    assert text.endswith(
        " Training took place from 31 March 2026 to 1 April 2026 (device: Fast CPU, fp32; autocrossdim 0.2.0, "
        "PyTorch 2.9.0)."
    )
    assert found["dx: dates of training"] == "31 March 2026 to 1 April 2026"
    assert found["dx: device, precision"] == "Fast CPU, fp32"
    assert found["Command: train dx"].endswith(" --config dx --set warmup=0.1 --fold 1")
    replace(checkpoint, fold=0).write(workspace.fold("dx", 0).latest)
    assert "Training took place" not in described()[0], "not all folds record it"
