"""What would a network teach itself? Its confident voxels, compared with the annotation of cases that it has not seen.

    python benchmarks/unlabelled.py --data ../shared/data --work FOLDER --cases 8 --weights FILE --arms without
    python benchmarks/pseudo_labels.py FOLDER

The networks of `unlabelled.py` without unlabelled scans segment the test cases without mirroring, as a teacher segments
patches of scans. Voxels with a probability of at least 0.95 would be learned from. Prints one row per network: the
share of such voxels, of all voxels and of those in structures, and what becomes of the wrong ones. Voxels beside a
border have a neighbour with another annotation.
"""

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from skimage.segmentation import find_boundaries

import autocrossdim
from trainers.teacher import CONFIDENCE


def counts(segmentation: Path, reference: Path) -> np.ndarray:
    """Return numbers of voxels: all, confident, in structures, both, wrong, wrong and confident, wrong at a border."""
    found, expected = (sitk.GetArrayFromImage(sitk.ReadImage(path)) for path in (segmentation, reference))
    with np.load(segmentation.with_name(segmentation.name.replace(".nii.gz", ".npz"))) as stored:
        sure = stored["probabilities"].max(axis=0) >= CONFIDENCE
    structure, wrong = expected > 0, found != expected
    border = find_boundaries(expected, connectivity=3, mode="thick")
    parts = (np.ones_like(sure), sure, structure, structure & sure, wrong, wrong & sure, wrong & border)
    return np.array([part.sum() for part in parts])


def row(folder: Path) -> str:
    """Return the row of a run."""
    (raw,) = (folder / "raw").iterdir()
    work, output = folder / "work", folder / "unmirrored"
    (model,) = (work / raw.name / "models").iterdir()
    options = {"work": work, "config": model.name, "device": "cpu", "probabilities": True, "mirroring": False}
    autocrossdim.predict(raw, folder / "images", output, **options)
    every = [counts(path, folder / "labels" / path.name) for path in output.glob("*.nii.gz")]
    total, sure, structure, sure_structure, wrong, wrong_sure, wrong_border = np.sum(every, axis=0)
    shares = (sure / total, sure_structure / structure, wrong / total, wrong_sure / wrong, wrong_border / wrong)
    return f"| {folder.name} | {' | '.join(f'{share:.1%}' for share in shares)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="Folder of the runs of unlabelled.py.")
    rows = [row(folder) for folder in sorted(parser.parse_args().work.glob("without-*"))]
    print("| run | confident | confident in structures | wrong | of these confident | of these beside a border |")
    print("|---|---|---|---|---|---|", *rows, sep="\n")


if __name__ == "__main__":
    main()
