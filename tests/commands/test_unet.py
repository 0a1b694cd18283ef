"""The plain U-Net as a baseline, from the plan to the report."""

from collections.abc import Callable
from pathlib import Path

import pytest

QUICK = ["--epochs", "1", "--set", "steps_per_epoch=2", "--set", "validation_batches=1", "--set", "workers=0"]


@pytest.mark.slow
def test_a_unet_is_planned_trained_compared_exported_and_applied(
    make_dataset: Callable[..., Path], tmp_path: Path, succeed: Callable[..., str], command: Callable[..., object]
) -> None:
    pictures = make_dataset(cases=("a", "b"), test_cases=("c",), ending=".png", shape=(24, 24))
    work = ["--work", tmp_path / "work"]
    plan = ["plan_and_preprocess", pictures, *work, "--planner", "unet", "--network", "paper", "--memory", "1"]
    said = succeed(*plan, "--encoder", "test_efficientnet", "--no-trial", "--processes", "1")
    assert "--planner unet was requested, so unet is used instead of omnia." in said
    assert "--encoder and --network do not apply to unet, which has no pretrained encoder." in said
    refused = command("train", pictures, *work, *QUICK, "--weights", "imagenet", "--fold", "0")
    assert refused.returncode == 2
    assert "a plain U-Net has no pretrained encoder" in refused.stderr
    assert "(randomly initialised)" in succeed("train", pictures, *work, *QUICK)
    assert "unet" in succeed("find_best", pictures, *work, "--processes", "1")
    succeed("export", pictures, *work, "-o", tmp_path / "unet.acd")
    succeed("predict", tmp_path / "unet.acd", "-i", pictures / "imagesTs", "-o", tmp_path / "segmented")
    assert (tmp_path / "segmented" / "c.png").exists()
    succeed("report", pictures, *work)
    assert "unet" in (tmp_path / "work" / pictures.name / "report.html").read_text(encoding="utf-8")
