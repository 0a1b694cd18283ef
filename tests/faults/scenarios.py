"""The commands under test."""

import json
import shutil
from pathlib import Path

from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules, write_dataset

NAME = "Dataset901_Nodules"
PAIRS, CONVERTED = "pairs", "Dataset902_Converted"  # a directory to convert, and the dataset that it becomes
LABELS = {"background": 0, "organ": 1, "nodule": 2}
SHAPE = (20, 28, 24)
PLAN = ("--encoder", "test_efficientnet", "--patch-size", "16,16,16", "--no-trial", "--memory", "1", "--processes", "1")
QUICK = {"steps_per_epoch": 1, "validation_batches": 1, "workers": 0, "slices_first": "false"}
CPU = ("--device", "cpu")
RANDOM = ("--weights", "random", *CPU)
SETTINGS = tuple(word for name, value in QUICK.items() for word in ("--set", f"{name}={value}"))

Chain = dict[str, tuple[str, ...]]  # what a command does -> its words; in an order in which each finds what it needs


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


def chains(folder: Path) -> tuple[Chain, ...]:
    """Return the command lines for the dataset in `folder`, where they also write; a chain starts from the raw data."""
    return _single_steps(folder), _whole_run(folder), _cascade(folder), _alone(folder)


def _single_steps(folder: Path) -> Chain:
    raw, work = str(folder / NAME), ("--work", str(folder / "work"))
    train = ("train", raw, *work, *RANDOM, "--epochs", "2", *SETTINGS)
    images, output = str(folder / NAME / "imagesTs"), str(folder / "segmented")
    predict = (
        *("predict", raw, *work, *CPU, "-i", images, "-o", output),
        *("--no-mirroring", "--probabilities", "--uncertainty"),
    )
    export = ("export", raw, *work)
    return {
        "convert": ("convert", str(folder / PAIRS), "-o", str(folder / CONVERTED), "--processes", "1"),
        "plan": ("plan", raw, *work, *PLAN),
        "preprocess": ("plan_and_preprocess", raw, *work, *PLAN),
        "train": (*train, "--fold", "0"),
        "train with unlabelled scans": (*train, "--fold", "1", "--set", "unlabelled=1"),
        "find_best": ("find_best", raw, *work, *CPU, "--processes", "1"),
        "predict": predict,
        "ensemble": ("ensemble", output, output, "-o", str(folder / "averaged"), "--dataset", raw),
        "export": (*export, "-o", str(folder / "model.acd")),
        "annotate_next": ("annotate_next", raw, *work, *CPU, "--no-mirroring"),
        "report": ("report", raw, *work),
        "verify": ("verify", raw, "--processes", "1"),
        "evaluate": ("evaluate", output, str(folder / NAME / "labelsTs"), "--dataset", raw, "--processes", "1"),
        "export to the hub": (*export, "--hub", str(folder / "hub"), "--fold", "0"),
        "distil": ("distil", raw, *work, *RANDOM, "--fold", "0", "--epochs", "1", *SETTINGS),
        "study": (
            *("study", "2d3d", raw, *work, *RANDOM, *PLAN[:4], "--memory", "1", "--processes", "1"),
            *("--cases", "1", "--test-cases", "1", "--seeds", "1", "--epochs", "1", *SETTINGS),
            *("--arm", "Omnia-Net"),
        ),
        "export to ONNX": (*export, "-o", str(folder / "small.acd"), "--onnx", str(folder / "onnx"), "--fold", "0"),
        "predict again": (*predict, "--overwrite"),
        "train longer": (*train, "--fold", "0", "--epochs", "3"),
        "plan again": ("plan", raw, *work, *PLAN, "--overwrite"),
        "train again": (*train, "--fold", "0", "--restart"),
    }


def _whole_run(folder: Path) -> Chain:
    raw, work = str(folder / NAME), ("--work", str(folder / "work"))
    return {"run": ("run", raw, *work, *RANDOM, *PLAN, "--epochs", "1", *SETTINGS)}


def _cascade(folder: Path) -> Chain:
    """Return the commands for a plan whose patches cover little of a case."""
    raw, work = str(folder / NAME), ("--work", str(folder / "work"))
    train = ("train", raw, *work, *RANDOM, "--epochs", "1", *SETTINGS)
    images, output = str(folder / NAME / "imagesTs"), str(folder / "segmented")
    return {
        "plan with a cascade": ("plan", raw, *work, *PLAN, "--patch-size", "8,8,8"),
        "train dx_lowres": (*train, "--config", "dx_lowres"),
        "train dx_cascade": (*train, "--config", "dx_cascade", "--fold", "0"),
        "predict with a cascade": (
            *("predict", raw, *work, *CPU, "-i", images, "-o", output),
            *("--config", "dx_cascade", "--fold", "0", "--no-mirroring"),
        ),
    }


def _alone(folder: Path) -> Chain:
    return {"doctor": ("doctor", *CPU, "-o", str(folder / "doctor.md"))}
