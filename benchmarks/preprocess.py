"""Time and memory of preprocessing one case, beside nnU-Net's on the same files.

    python benchmarks/preprocess.py --nnunet PYTHON [--output FILE]

Every row is a process of its own that reads an image and its label (NIfTI), resamples both to 1 mm and writes them
compressed, with positions of every label, as for training. `--nnunet` names the Python of an environment with nnU-Net
2.8.1. Time is the processor time without imports, on one thread. Memory is the peak of the resident set; in brackets,
what it is more than after the imports.
"""

import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from volume import Measured, label_names, nnunet_plans, our_plan, row_parser, run_row, write_volume

ROWS: list[dict[str, Any]] = [
    {"shape": (96, 200, 200), "mm": (1.0, 0.8, 0.8), "labels": 3},
    {"shape": (128, 256, 256), "mm": (1.0, 0.8, 0.8), "labels": 3},
    {"shape": (128, 256, 256), "mm": (1.0, 0.8, 0.8), "labels": 31},
    {"shape": (200, 384, 384), "mm": (1.5, 0.8, 0.8), "labels": 3},
]
PATCH = (48, 80, 80)


def write_label(job: dict[str, Any], folder: Path) -> None:
    """Write a label with blocks of 16 voxels, two thirds of which are background."""
    import numpy as np
    import SimpleITK as sitk

    random = np.random.default_rng(1)
    coarse_shape = [n // 16 + 1 for n in job["shape"]]
    coarse = random.integers(1, job["labels"], coarse_shape) * (random.random(coarse_shape) < 1 / 3)
    label = coarse.astype(np.uint8)
    for axis in range(3):
        label = label.repeat(16, axis)
    image = sitk.GetImageFromArray(np.ascontiguousarray(label[tuple(slice(n) for n in job["shape"])]))
    image.SetSpacing(job["mm"][::-1])
    sitk.WriteImage(image, str(folder / "a.nii.gz"), useCompression=True)


def run_ours(job: dict[str, Any], folder: Path) -> None:
    """Preprocess the case as `plan_and_preprocess` does."""
    from autocrossdim.data.dataset import Case
    from autocrossdim.preprocessing.dataset import preprocess_cases
    from autocrossdim.preprocessing.store import Store

    plan = our_plan(job)
    case = Case("a", (folder / "images" / "a_0000.nii.gz",), folder / "a.nii.gz")
    with Measured():
        preprocess_cases([case], plan, plan.configurations["dx"], Store(folder / "ours"), processes=1)


def run_nnunet(job: dict[str, Any], folder: Path) -> None:
    """Preprocess the case as `nnUNetv2_preprocess` does."""
    import torch
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.set_num_threads(job["threads"])
    plans, dataset = nnunet_plans(job)
    manager = PlansManager(plans)
    images, label = [str(folder / "images" / "a_0000.nii.gz")], str(folder / "a.nii.gz")
    (folder / "nnunet").mkdir()
    with Measured():
        DefaultPreprocessor(verbose=False).run_case_save(
            str(folder / "nnunet" / "a"), images, label, manager, manager.get_configuration("3d_fullres"), dataset
        )


def compare(job: dict[str, Any], nnunet: str) -> str:
    """Return a line of the table."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_volume(job, folder)
        write_label(job, folder)
        ours = run_row(__file__, sys.executable, "ours", job, folder, threads=1)
        theirs = run_row(__file__, nnunet, "nnunet", job, folder, threads=1)
    columns = [" x ".join(map(str, job[key])) for key in ("shape", "mm")]
    columns.append(str(len(label_names(job))))
    columns += [f"{row['cpu']:.1f} s, {row['peak']:.0f} MB ({row['more']:.0f})" for row in (ours, theirs)]
    columns.append(f"{theirs['cpu'] / ours['cpu']:.1f}")
    columns.append(f"{ours['peak'] / theirs['peak']:.2f} ({ours['more'] / theirs['more']:.2f})")
    return f"| {' | '.join(columns)} |"


def main() -> None:
    """Print the table; with --output also write it."""
    parser = row_parser(__doc__)
    parser.add_argument("--nnunet", metavar="PYTHON")
    arguments = parser.parse_args()
    if arguments.row is not None:
        (run_ours if arguments.who == "ours" else run_nnunet)(arguments.row, arguments.folder)
        return
    if not arguments.nnunet:
        parser.error("--nnunet: give the Python to compare with")
    lines = [
        f"Measured on: {platform.machine()}, 1 thread.",
        "",
        "| volume | spacing (mm) | labels | ours: time, peak (more than imports) | nnU-Net | times faster | "
        "share of its memory |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for job in ROWS:
        lines.append(compare(job | {"patch": PATCH}, arguments.nnunet))
        print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
