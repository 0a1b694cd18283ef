"""Overlapping regions, and slices or labels that were not annotated, from the raw dataset to the scores."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import autocrossdim
from autocrossdim.cli import app
from autocrossdim.data.images import read_label, write_label
from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules
from autocrossdim.data.phantoms import write_dataset as write_phantoms
from autocrossdim.system.files import read_json, write_json

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "Dataset004_Hippocampus"
IGNORE = 3
VARIANTS: dict[str, dict[str, Any]] = {
    "regions": {"labels": {"background": 0, "whole": [1, 2], "part": 2}, "regions_class_order": [1, 2]},
    "ignored": {"labels": {"background": 0, "first": 1, "second": 2, "ignore": IGNORE}},
}
CASES = 6
LEARNED = 0.55  # Dice; an untrained network has less than 0.2


def phantoms(folder: Path) -> Path:
    labels = {"background": 0, "organ": 1, "nodule": 2}
    write_phantoms(folder, lambda random: nodules(random, (20, 28, 24)), labels, ISOTROPIC_SPACING, CASES, test=2)
    return folder


def hippocampus(folder: Path) -> Path:
    if not SHARED.is_dir():
        pytest.skip(f"{SHARED} is not here")
    for part, number in (("Tr", CASES), ("Ts", 2)):
        for label in sorted((SHARED / f"labels{part}").iterdir())[:number]:
            image = label.name.replace(".nii.gz", "_0000.nii.gz")
            for kind, name in ((f"labels{part}", label.name), (f"images{part}", image)):
                (folder / kind).mkdir(parents=True, exist_ok=True)
                (folder / kind / name).write_bytes((SHARED / kind / name).read_bytes())
    write_json(folder / "dataset.json", {**read_json(SHARED / "dataset.json"), "numTraining": CASES})
    return folder


def leave_out_a_third(labels: Path) -> None:
    """Mark a third of the slices of every label as not labelled."""
    for number, path in enumerate(sorted(labels.iterdir())):
        array, geometry = read_label(path)
        array = array.astype(np.uint8)
        slices = np.random.default_rng(number).permutation(array.shape[0])[: array.shape[0] // 3]
        array[slices] = IGNORE
        write_label(array, geometry, path)


@pytest.mark.slow
@pytest.mark.parametrize("source", [phantoms, hippocampus])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_labelled_is_learned(variant: str, source: Callable[[Path], Path], tmp_path: Path) -> None:
    raw = source(tmp_path / "Dataset907_Partial")
    truth = raw / "labelsTs"
    write_json(raw / "dataset.json", {**read_json(raw / "dataset.json"), **VARIANTS[variant]})
    if variant == "ignored":
        leave_out_a_third(raw / "labelsTr")
    work, segmented = tmp_path / "work", tmp_path / "segmented"
    options = {"patch_size": (16, 24, 24), "batch_size": 2, "trial": False}
    autocrossdim.plan_and_preprocess(raw, work=work, planner="dx", **options, processes=1)
    settings = {"epochs": 1, "steps_per_epoch": 120, "learning_rate": 3e-3, "augmentation": "none", "workers": 0}
    autocrossdim.train(
        raw, work=work, fold=["all"], weights="random", device="cpu", set={**settings, "slices_first": False}
    )
    autocrossdim.predict(raw, raw / "imagesTs", segmented, work=work, device="cpu", mirroring=False)
    summary = autocrossdim.evaluate(segmented, truth, dataset=raw, processes=1)
    assert set(summary.mean) == ({"(1, 2)", "2"} if variant == "regions" else {"1", "2"})
    values = {int(v) for path in segmented.glob("*.nii.gz") for v in np.unique(read_label(path)[0])}
    assert values <= {0, 1, 2}
    assert summary.foreground_mean["Dice"] > LEARNED


def command(*words: object) -> str:
    """Run a command line in this process and return what it printed."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return " ".join(result.output.split())


def annotate_in_part(labels: Path) -> None:
    """Keep every third slice only, and no nodule in every other case."""
    for number, path in enumerate(sorted(labels.iterdir())):
        array, geometry = read_label(path)
        array[np.arange(len(array)) % 3 != number % 3] = 0
        if number % 2 == 0:
            array[array == 2] = 0
        write_label(array.astype(np.uint8), geometry, path)


@pytest.mark.slow
def test_the_command_line_leaves_out_what_was_not_annotated(tmp_path: Path) -> None:
    raw, work = phantoms(tmp_path / "Dataset908_InPart"), tmp_path / "work"
    annotate_in_part(raw / "labelsTr")
    assert "labels occur only in separate slices, most often 3 slices apart" in command("verify", raw)
    names = sorted(path.name.removesuffix(".nii.gz") for path in (raw / "labelsTr").iterdir())
    keys = {"unannotated_slices": "empty", "annotated_labels": {name: ["organ"] for name in names[::2]}}
    halves = [{"train": names[:3], "val": names[3:]}, {"train": names[3:], "val": names[:3]}]
    write_json(raw / "splits_final.json", halves)
    write_json(raw / "dataset.json", {**read_json(raw / "dataset.json"), **keys})
    assert "No problems found" in command("verify", raw)
    command("plan_and_preprocess", raw, "--work", work, "--encoder", "test_efficientnet", "--no-trial")
    settings = ["steps_per_epoch=1", "validation_batches=1", "workers=0"]
    train = ["train", raw, "--work", work, "--weights", "random", "--epochs", 1, "--device", "cpu"]
    said = command(*train, *(word for setting in settings for word in ("--set", setting)))
    assert "annotated slices only" in said
    assert "'nodule' was annotated in 3 of 6 cases" in said

    best = command("find_best", raw, "--work", work, "--device", "cpu")
    assert "Cross-validation of Dataset908_InPart, annotated slices only" in best
    command("report", raw, "--work", work)
    page = (work / raw.name / "report.html").read_text(encoding="utf-8")
    assert page.count("annotated slices only") >= 3, "the results, the list of cases and the models compared"
    summary = read_json(work / raw.name / "models" / "dx" / "summary.json")
    annotated = sum(case["annotated_slices"][0] for case in summary["metric_per_case"])
    assert summary["scope"] == f"annotated slices only ({annotated} of {CASES * 20})"
    undrawn = [np.isnan(case["metrics"]["2"]["n_ref"]) for case in summary["metric_per_case"]]
    assert undrawn == [True, False] * 3

    # The test cases are annotated everywhere.
    command("predict", raw, "--work", work, "-i", raw / "imagesTs", "-o", tmp_path / "out", "--device", "cpu")
    evaluate = ["evaluate", tmp_path / "out", raw / "labelsTs", "--dataset", raw]
    assert "annotated slices only" in command(*evaluate)
    assert "annotated slices only" not in command(*evaluate, "--all-slices")
