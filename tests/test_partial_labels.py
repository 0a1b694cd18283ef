"""Overlapping regions and unlabelled slices, from the raw dataset to the scores, on made and on real volumes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocrossdim
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
    settings = {"epochs": 1, "steps_per_epoch": 120, "learning_rate": 3e-3, "augment": False, "workers": 0}
    autocrossdim.train(
        raw, work=work, fold=["all"], weights="random", device="cpu", set={**settings, "slices_first": False}
    )
    autocrossdim.predict(raw, raw / "imagesTs", segmented, work=work, device="cpu", mirroring=False)
    summary = autocrossdim.evaluate(segmented, truth, dataset=raw, processes=1)
    assert set(summary.mean) == ({"(1, 2)", "2"} if variant == "regions" else {"1", "2"})
    values = {int(v) for path in segmented.glob("*.nii.gz") for v in np.unique(read_label(path)[0])}
    assert values <= {0, 1, 2}
    assert summary.foreground_mean["Dice"] > LEARNED
