"""The commands under test, in an order in which each finds what it needs."""

import json
import os
import shutil
from pathlib import Path

from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset

NAME = "Dataset901_Nodules"
PAIRS, CONVERTED = "pairs", "Dataset902_Converted"  # a directory to convert, and the dataset that it becomes
LABELS = {"background": 0, "organ": 1, "nodule": 2}
SHAPE = (20, 28, 24)
PLAN = ("--encoder", "test_efficientnet", "--patch-size", "16,16,16", "--no-trial", "--memory", "1", "--processes", "1")
QUICK = {"steps_per_epoch": 1, "validation_batches": 1, "workers": 0, "slices_first": "false"}
LONG_AGO = 1_600_000_000  # time of the files: records keep the time of a file only if it is not quite recent


def write_raw(folder: Path) -> None:
    """Write the raw dataset, and its training cases as files to convert.

    It has two cases in two folds, two images to segment and an unlabelled scan.
    """
    raw = folder / NAME
    write_dataset(raw, lambda random: nodules(random, SHAPE), LABELS, ISOTROPIC_SPACING, training=2, test=2)
    (raw / "imagesUn").mkdir()
    first = min((raw / "imagesTs").iterdir())
    (raw / "imagesUn" / "scan_0000.nii.gz").write_bytes(first.read_bytes())
    folds = [{"train": ["case_00"], "val": ["case_01"]}, {"train": ["case_01"], "val": ["case_00"]}]
    (raw / "splits_final.json").write_text(json.dumps(folds), encoding="utf-8")
    for part in ("images", "labels"):
        shutil.copytree(raw / f"{part}Tr", folder / PAIRS / part)
    for file in folder.rglob("*"):
        os.utime(file, (LONG_AGO, LONG_AGO))


def commands(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the command lines by what they do, for the dataset in `folder`, where they also write."""
    raw, work = str(folder / NAME), ("--work", str(folder / "work"))
    settings = tuple(word for name, value in QUICK.items() for word in ("--set", f"{name}={value}"))
    cpu = ("--device", "cpu")
    random = ("--weights", "random", *cpu)
    train = ("train", raw, *work, *random, "--epochs", "2", *settings)
    images, output = str(folder / NAME / "imagesTs"), str(folder / "segmented")
    predict = (
        *("predict", raw, *work, *cpu, "-i", images, "-o", output),
        *("--no-mirroring", "--probabilities", "--uncertainty"),
    )
    return {
        "convert": ("convert", str(folder / PAIRS), "-o", str(folder / CONVERTED), "--processes", "1"),
        "plan": ("plan", raw, *work, *PLAN),
        "preprocess": ("plan_and_preprocess", raw, *work, *PLAN),
        "train": (*train, "--fold", "0"),
        "train with unlabelled scans": (*train, "--fold", "1", "--set", "unlabelled=1"),
        "find_best": ("find_best", raw, *work, *cpu, "--processes", "1"),
        "predict": predict,
        "ensemble": ("ensemble", output, output, "-o", str(folder / "averaged"), "--dataset", raw),
        "export": ("export", raw, *work, "-o", str(folder / "model.acd")),
        "annotate_next": ("annotate_next", raw, *work, *cpu, "--no-mirroring"),
        "report": ("report", raw, *work),
        "distil": ("distil", raw, *work, *random, "--fold", "0", "--epochs", "1", *settings),
        "study": (
            *("study", "2d3d", raw, *work, *random, *PLAN[:4], "--memory", "1", "--processes", "1"),
            *("--cases", "1", "--test-cases", "1", "--seeds", "1", "--epochs", "1", *settings),
            *("--arm", "Omnia-Net"),
        ),
        "predict again": (*predict, "--overwrite"),
        "train longer": (*train, "--fold", "0", "--epochs", "3"),
    }
