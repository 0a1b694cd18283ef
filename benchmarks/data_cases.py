"""What the experiments of `data.py` share: cases with changed labels, training, and held-out Dice."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import autocrossdim
from autocrossdim.data.annotated_slices import Label
from autocrossdim.data.images import read_label, write_label
from autocrossdim.system.files import read_json, write_json

HIPPOCAMPUS = "Dataset004_Hippocampus"
ENDING = ".nii.gz"
STEPS_PER_EPOCH = 25
PLAN: dict[str, Any] = {"planner": "omnia", "memory": 4, "trial": False, "processes": 1}

Change = Callable[[str, Label], Label]
"""Case and its label map (Z, Y, X) -> the label map of the experiment."""


def case_names(data: Path) -> list[str]:
    """Return the labelled training cases of Hippocampus, sorted."""
    return sorted(file.name.removesuffix(ENDING) for file in (data / HIPPOCAMPUS / "labelsTr").iterdir())


def halves(data: Path, seed: int) -> tuple[list[str], list[str]]:
    """Return 16 training cases in an order that depends on the seed, and 16 held-out cases, the same for every seed."""
    names = case_names(data)
    return [str(name) for name in np.random.default_rng(seed).permutation(names[::2])], names[1::2]


def sparse(every: int, random: np.random.Generator) -> Change:
    """Keep every k-th slice of a label map, from a random one of the first k labelled slices on."""

    def change(_case: str, label: Label) -> Label:
        labelled = np.flatnonzero(label.any(axis=(1, 2)))
        first = labelled[0] + random.integers(min(every, len(labelled)))
        kept = np.zeros_like(label)
        kept[first::every] = label[first::every]
        return kept

    return change


def write_raw(
    source: Path, raw: Path, cases: Sequence[str], change: Change | None = None, **description: Any
) -> dict[str, int]:
    """Write a raw dataset of some training cases of another, whose files stay where they are unless changed.

    Args:
        source: The other dataset.
        raw: Directory of the new dataset.
        cases: Names of the cases.
        change: Change of the label maps; None to use them as they are.
        description: Further keys of dataset.json.

    Returns:
        Case -> number of its slices with a label.
    """
    source = source.resolve()
    files, slices = {}, {}
    for case in sorted(cases):
        label = source / "labelsTr" / f"{case}{ENDING}"
        array, geometry = read_label(label)
        if change is not None:
            array, label = change(case, array), raw / "labelsTr" / label.name
            write_label(array, geometry, label)
        slices[case] = int((array != 0).any(axis=(1, 2)).sum())
        image = source / "imagesTr" / f"{case}_0000{ENDING}"
        files[case] = {"images": [str(image)], "label": str(label.resolve())}
    content = {**read_json(source / "dataset.json"), "numTraining": len(files), "dataset": files, **description}
    if "groups" in content:
        content["groups"] = {case: content["groups"][case] for case in files}
    write_json(raw / "dataset.json", content)
    return slices


def train(
    raw: Path,
    work: Path,
    *,
    patch_size: tuple[int, int],
    batch_size: int,
    weights: Path,
    start: str | None = None,
    seed: int,
    epochs: int,
) -> None:
    """Plan Omnia-Net, and train it on all cases.

    Patch and batch are the same for every arm; the planner would choose smaller batches for fewer cases.

    Args:
        raw: Raw dataset.
        work: Directory of all results.
        patch_size: Patch (Y, X), in voxels.
        batch_size: Patches per step.
        weights: File with encoder weights, named after the encoder.
        start: Starting weights; those of the file if None.
        seed: Seed of the training.
        epochs: Number of epochs.
    """
    encoder = weights.name.partition(".")[0]
    autocrossdim.plan_and_preprocess(
        raw, work=work, encoder=encoder, patch_size=patch_size, batch_size=batch_size, **PLAN
    )
    settings = {"steps_per_epoch": STEPS_PER_EPOCH, "validation_batches": 1, "workers": 0, "seed": seed}
    autocrossdim.train(
        raw, work=work, fold="all", weights=start or str(weights), device="cpu", epochs=epochs, set=settings
    )


def dice(
    source: Path, raw: Path, work: Path, cases: Sequence[str], change: Change | None = None
) -> dict[str, dict[str, float]]:
    """Segment training cases of a dataset that the model has not seen, and return the Dice per case and label.

    Args:
        source: The dataset.
        raw: Dataset of the model.
        work: Directory of its results.
        cases: Names of the cases.
        change: Change of the reference label maps.
    """
    test = work / "test"
    write_raw(source, test, cases, change or (lambda _case, label: label))
    for case in cases:
        link = test / "imagesTr" / f"{case}_0000{ENDING}"
        link.parent.mkdir(exist_ok=True)
        if not link.exists():
            link.symlink_to((source / "imagesTr" / link.name).resolve())
    return dice_of(raw, work, test / "imagesTr", test / "labelsTr")


def dice_of(raw: Path, work: Path, images: Path, labels: Path) -> dict[str, dict[str, float]]:
    """Segment images, and return the Dice per case and label."""
    segmented = work / "segmented"
    autocrossdim.predict(raw, images, segmented, work=work, device="cpu", overwrite=True)
    summary = autocrossdim.evaluate(segmented, labels, dataset=raw, all_slices=True, processes=1)
    return {
        Path(case.prediction_file).name.removesuffix(ENDING): {
            summary.labels[key]: metrics["Dice"] for key, metrics in case.metrics.items()
        }
        for case in summary.metric_per_case
    }
