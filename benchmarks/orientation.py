r"""Does a trained network give the same segmentation in each of the 48 orders and directions of an image's axes?

    python benchmarks/orientation.py MODEL -i ../shared/data/Dataset004_Hippocampus/imagesTs --seconds 600

Segments every image in its stored orientation and in the 47 others, with correct headers, and reorients the
segmentations to the stored orientation. Prints the share of equal voxels and the lowest Dice of a label, and writes
them to `benchmarks/results/orientation.json`. Images are added until the time is up.
"""

import argparse
import json
import os
import time
from itertools import permutations, product
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import SimpleITK as sitk

import autocrossdim
from autocrossdim.system.files import write_text

RESULT = Path(__file__).parent / "results" / "orientation.json"
ORIENTATIONS = [
    "".join(letters) for axes in permutations(("RL", "AP", "IS")) for letters in product(*axes)
]  # ITK's codes, of the axes x, y, z


def compare(stored: np.ndarray, other: np.ndarray) -> dict[str, float]:
    """Return the share of equal voxels, and the lowest Dice of a label, of two segmentations."""
    dice = [
        2
        * float(((stored == label) & (other == label)).sum())
        / float((stored == label).sum() + (other == label).sum())
        for label in np.union1d(stored, other)
        if label
    ]
    return {"equal": float((stored == other).mean()), "lowest_dice": min(dice, default=1.0)}


def measure(predictor: autocrossdim.Predictor, image: sitk.Image) -> dict[str, float]:
    """Segment an image in every orientation; return the least agreement with its segmentation as stored."""
    own = sitk.DICOMOrientImageFilter.GetOrientationFromDirectionCosines(image.GetDirection())
    stored = sitk.GetArrayFromImage(predictor(image).to_sitk())
    agreements = []
    for orientation in ORIENTATIONS:
        segmentation = predictor(sitk.DICOMOrient(image, orientation)).to_sitk()
        back = sitk.DICOMOrient(segmentation, own)
        agreements.append(compare(stored, sitk.GetArrayFromImage(back)))
    return {name: min(agreement[name] for agreement in agreements) for name in ("equal", "lowest_dice")}


def main() -> None:
    """Measure the images that the time allows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("-i", "--input", type=Path, required=True)
    parser.add_argument("--work", type=Path, help="work folder of the model's dataset")
    parser.add_argument("--seconds", type=float, default=600)
    arguments = parser.parse_args()
    predictor = autocrossdim.Predictor.load(arguments.model, work=arguments.work, device="cpu")
    end = time.monotonic() + arguments.seconds
    cases = {}
    for file in sorted(arguments.input.glob("*.nii.gz")):
        if time.monotonic() > end:
            break
        cases[file.name] = measure(predictor, sitk.ReadImage(str(file)))
        equal, dice = (min(case[name] for case in cases.values()) for name in ("equal", "lowest_dice"))
        print(f"{len(cases)} images: at least {equal:.5f} of the voxels are equal; lowest Dice {dice:.5f}", flush=True)
        write_text(RESULT, json.dumps(cases, indent=1) + "\n")


if __name__ == "__main__":
    main()
