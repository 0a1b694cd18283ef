"""What datasets of clinics do, through the command line: they grow, and channels are missing."""

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from autocrossdim.cli import app
from autocrossdim.data.images import read_label
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.files import read_json, write_json

QUICK = ["--fold", "0", "--device", "cpu", "--epochs", "1"]
QUICK += [word for pair in ("steps_per_epoch=2", "validation_batches=1", "workers=0") for word in ("--set", pair)]
SMALL = ["--planner", "omnia", "--memory", "1", "--no-trial", "--patch-size", "16,16", "--processes", "1"]


def succeed(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    return result.output + result.stderr


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "Dataset901_Nodules"
    labels = {"background": 0, "organ": 1, "nodule": 2}
    write_dataset(folder, lambda random: nodules(random, (20, 24, 22)), labels, ISOTROPIC_SPACING, training=5)
    return folder


@pytest.mark.slow
def test_a_growing_dataset(raw: Path, tmp_path: Path) -> None:
    work = ["--work", tmp_path / "work"]
    succeed("plan_and_preprocess", raw, *work, *SMALL)
    succeed("train", raw, *work, *QUICK, "--weights", "random")
    plan = (tmp_path / "work" / raw.name / "plan.json").read_text(encoding="utf-8")
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("case_05", "case_06"):
        image = raw / "imagesTs" / f"{name}_0000.nii.gz"
        (scans / image.name).write_bytes(image.read_bytes())
        image.rename(raw / "imagesTr" / image.name)
        (raw / "labelsTs" / f"{name}.nii.gz").rename(raw / "labelsTr" / f"{name}.nii.gz")
    said = succeed("plan_and_preprocess", raw, *work, *SMALL)
    assert "omnia fold 0 was trained on 4 of the 5 current training cases." in said
    assert f"Next: autocrossdim train {raw} --work {tmp_path / 'work'} --weights previous" in said
    assert (tmp_path / "work" / raw.name / "plan.json").read_text(encoding="utf-8") == plan
    succeed("train", raw, *work, *QUICK, "--weights", "previous")
    checkpoint = Checkpoint.read(Workspace(tmp_path / "work" / raw.name).fold("omnia", 0).latest)
    assert checkpoint.provenance["steps"] == 2
    assert len(checkpoint.split["train"]) == 5
    succeed("predict", raw, *work, "-i", scans, "-o", tmp_path / "out", "--device", "cpu")
    assert sorted(file.name for file in (tmp_path / "out").glob("*.nii.gz")) == ["case_05.nii.gz", "case_06.nii.gz"]


@pytest.mark.slow
def test_a_missing_channel(raw: Path, tmp_path: Path) -> None:
    work = ["--work", tmp_path / "work"]
    write_json(raw / "dataset.json", {**read_json(raw / "dataset.json"), "channel_names": {"0": "T1", "1": "T2"}})
    for file in [*raw.glob("images*/*_0000.nii.gz")]:
        file.with_name(file.name.replace("_0000", "_0001")).write_bytes(file.read_bytes())
    succeed("plan_and_preprocess", raw, *work, *SMALL)
    (raw / "imagesTs" / "case_06_0000.nii.gz").unlink()
    train = ["train", raw, *work, *QUICK, "--weights", "random"]
    predict = [
        "predict",
        raw,
        *work,
        "-i",
        raw / "imagesTs",
        "-o",
        tmp_path / "out",
        "--device",
        "cpu",
        "--uncertainty",
    ]
    succeed(*train)
    refused = CliRunner().invoke(app, [str(word) for word in predict])
    assert refused.exit_code != 0
    assert "channel_dropout" in str(refused.exception)
    assert not (tmp_path / "out").exists()
    succeed(*train, "--restart", "--set", "channel_dropout=0.3")
    said = succeed(*predict)
    assert "warning: case_06: segmented without T1, which is missing." in said
    assert "case_05: segmented without" not in said
    with (tmp_path / "out" / "uncertainty.csv").open() as file:
        missing = {row["case"]: row["missing_channels"] for row in csv.DictReader(file)}
    assert missing == {"case_05": "", "case_06": "T1"}
    label, geometry = read_label(tmp_path / "out" / "case_06.nii.gz")
    assert geometry == read_label(raw / "labelsTs" / "case_06.nii.gz")[1]
    assert set(np.unique(label)) <= {0, 1, 2}
