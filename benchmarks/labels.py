"""What do regions and unlabelled slices cost? DX-Net on Hippocampus, its labels given in three ways.

    python benchmarks/labels.py --data ../shared/data --weights FILE --work FOLDER

The same cases, steps and seeds with (1) both labels everywhere, (2) the whole hippocampus and its posterior part as
overlapping regions, (3) a third of the slices marked to be ignored. All are compared with the full labels of the 16
cases of `imagesTs`. The table goes to docs/explanation/training.md.
"""

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import SimpleITK as sitk

import autocrossdim
from autocrossdim.system.files import read_json, write_json

IGNORE = 3
VARIANTS = {
    "labels": {"background": 0, "Anterior": 1, "Posterior": 2},
    "regions": {"background": 0, "whole": [1, 2], "Posterior": 2},
    "ignored": {"background": 0, "Anterior": 1, "Posterior": 2, "ignore": IGNORE},
}
SETTINGS = {"epochs": 6, "steps_per_epoch": 25}


def derive(source: Path, target: Path, variant: str, seed: int) -> None:
    """Write the raw dataset of a variant."""
    content = {**read_json(source / "dataset.json"), "labels": VARIANTS[variant]}
    if variant == "regions":
        content["regions_class_order"] = [1, 2]
    cases = sorted(file.name.removesuffix(".nii.gz") for file in (source / "labelsTr").iterdir())
    random = np.random.default_rng(seed)
    files = {}
    for case in cases:
        label = sitk.ReadImage(str(source / "labelsTr" / f"{case}.nii.gz"))
        array = sitk.GetArrayFromImage(label)
        if variant == "ignored":
            array[random.permutation(len(array))[: len(array) // 3]] = IGNORE
        changed = sitk.GetImageFromArray(array)
        changed.CopyInformation(label)
        path = target / "labelsTr" / f"{case}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(changed, str(path))
        image = (source / "imagesTr" / f"{case}_0000.nii.gz").resolve()
        files[case] = {"images": [str(image)], "label": str(path.resolve())}
    write_json(target / "dataset.json", {**content, "numTraining": len(files), "dataset": files})


def main() -> None:
    """Train, predict and compare the variants; print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    source = arguments.data / "Dataset004_Hippocampus"
    print("| labels | Dice, mean of seeds | each seed |\n|---|---|---|")
    for variant in VARIANTS:
        scores = []
        for seed in range(arguments.seeds):
            folder = arguments.work / f"{variant}_{seed}"
            raw = folder / "raw" / source.name
            derive(source, raw, variant, seed)
            options = {"encoder": "tf_efficientnetv2_b0", "trial": False}
            autocrossdim.plan_and_preprocess(raw, work=folder / "work", **options)
            autocrossdim.train(
                raw, work=folder / "work", fold=["all"], weights=arguments.weights, set={**SETTINGS, "seed": seed}
            )
            autocrossdim.predict(raw, source / "imagesTs", folder / "segmented", work=folder / "work")
            summary = autocrossdim.evaluate(folder / "segmented", source / "labelsTs", dataset=source)
            scores.append(summary.foreground_mean["Dice"])
        each = ", ".join(f"{score:.3f}" for score in scores)
        print(f"| {variant} | {np.mean(scores):.3f} | {each} |", flush=True)


if __name__ == "__main__":
    main()
