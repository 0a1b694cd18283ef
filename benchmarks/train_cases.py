"""Training and test cases of `train.py`, chosen by a seed, as a dataset that both tools read."""

import json
from pathlib import Path
from typing import Any

import numpy as np

DATASETS = {
    "Hippocampus": "Dataset004_Hippocampus",
    "SunnybrookLV": "Dataset045_SunnybrookLV",
    "SunnybrookSlices": "Dataset046_SunnybrookSlices",
}
SEEDS = (0, 1, 2)
TEST_SLICES = 40


def select(source: Path, cases: int, seed: int, *, tuning: bool = False) -> tuple[list[str], list[str]]:
    """Return the training and the test cases.

    - Hippocampus: `cases` random training cases; the 16 cases of `imagesTs`.
    - SunnybrookLV: the volumes of all patients but the one that the seed numbers; that patient's volumes.
    - SunnybrookSlices: slices of every second patient, one of each in turn; 40 slices of the other patients.

    With `tuning`, settings may be chosen by the result: Hippocampus is tested on the other training cases, and the two
    halves of the patients of SunnybrookSlices change places.

    Args:
        source: Folder of the original dataset.
        cases: Number of training cases.
        seed: Number of the choice, one of SEEDS.
        tuning: Whether a setting is to be chosen by the result.

    Raises:
        SystemExit: The dataset has fewer training cases.
    """
    if source.name == DATASETS["Hippocampus"]:
        training, test = volumes(source, seed)
        test = sorted(training[cases:]) if tuning else test
    elif source.name == DATASETS["SunnybrookLV"]:
        training, test = without_one_patient(source, seed)
    else:
        training, test = slices(source, seed, first=int(tuning))
    if len(training) < cases:
        raise SystemExit(f"{source.name} has {len(training)} training cases. Choose --cases accordingly.")
    return sorted(training[:cases]), test


def groups_of(source: Path, cases: list[str]) -> dict[str, str]:
    """Return the group (patient) of each case; a case without one is a group of its own."""
    groups = _description(source).get("groups", {})
    return {case: groups.get(case, case) for case in cases}


def write(source: Path, training: list[str], test: list[str], folder: Path) -> None:
    """Write `raw/<dataset>` with the training cases, and links to the test cases in `images` and `labels`."""
    content = _description(source)
    files = _files(source, content["file_ending"])
    content["dataset"] = {
        case: {"images": [str(image) for image in files[case][0]], "label": str(files[case][1])} for case in training
    }
    content["numTraining"] = len(training)
    if "groups" in content:
        content["groups"] = {case: content["groups"][case] for case in training}
    for name in (f"raw/{source.name}", "images", "labels"):
        (folder / name).mkdir(parents=True)
    (folder / "raw" / source.name / "dataset.json").write_text(json.dumps(content, indent=2))
    for images, label in (files[case] for case in test):
        for image in images:
            (folder / "images" / image.name).symlink_to(image)
        (folder / "labels" / label.name).symlink_to(label)


def _description(source: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((source / "dataset.json").read_text())
    return content


def _files(source: Path, ending: str) -> dict[str, tuple[list[Path], Path]]:
    files = {}
    for label in source.resolve().glob(f"labelsT[rs]/*{ending}"):
        case = label.name.removesuffix(ending)
        images = label.parents[1] / label.parent.name.replace("labels", "images")
        files[case] = (sorted(images.glob(f"{case}_[0-9][0-9][0-9][0-9]{ending}")), label)
    return files


def images_of(source: Path, cases: list[str]) -> list[Path]:
    """Return the image files of some cases."""
    files = _files(source, _description(source)["file_ending"])
    return [image for case in cases for image in files[case][0]]


def volumes(source: Path, seed: int) -> tuple[list[str], list[str]]:
    """Return the training cases of Hippocampus in random order, and its test cases."""
    cases, test = (
        sorted(label.name.removesuffix(".nii.gz") for label in (source / part).iterdir())
        for part in ("labelsTr", "labelsTs")
    )
    return [str(case) for case in np.random.default_rng(seed).permutation(cases)], test


def without_one_patient(source: Path, seed: int) -> tuple[list[str], list[str]]:
    """Return the volumes of all patients of SunnybrookLV but the one that the seed numbers, and that patient's."""
    groups = _description(source)["groups"]
    left_out = sorted(set(groups.values()))[seed]
    return sorted(c for c in groups if groups[c] != left_out), sorted(c for c in groups if groups[c] == left_out)


def slices(source: Path, seed: int, *, first: int = 0) -> tuple[list[str], list[str]]:
    """Return slices of every second patient of SunnybrookSlices, one of each in turn, and slices of the others.

    Args:
        source: Folder of the original dataset.
        seed: Number of the choice.
        first: Number of the first patient to train on, 0 or 1.
    """
    groups = _description(source)["groups"]
    patients = sorted(set(groups.values()))
    of_patient = {patient: sorted(case for case in groups if groups[case] == patient) for patient in patients}
    # Each half of the patients holds all four diagnostic groups of the dataset.
    test = [case for patient in patients[1 - first :: 2] for case in of_patient[patient]]
    test = [test[i] for i in np.linspace(0, len(test) - 1, TEST_SLICES).astype(int)]
    random = np.random.default_rng(seed)
    queues = [list(random.permutation(of_patient[patient])) for patient in patients[first::2]]
    turns = range(max(map(len, queues)))
    return [str(queue[turn]) for turn in turns for queue in queues if turn < len(queue)], test
