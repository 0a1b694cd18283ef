"""What is planned for well-known kinds of data, and how much processor time planning takes.

    python benchmarks/plan.py [--output FILE]

The datasets exist only as numbers, those of `docs/explanation/planning.md`; nothing is read and no GPU is needed.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autocrossdim.data.dataset import Dataset
from autocrossdim.records.fingerprint import CaseFingerprint, Fingerprint, Intensities
from autocrossdim.records.labels import Labels
from autocrossdim.records.plan import GIGABYTE
from autocrossdim.records.plan_options import PlanOptions
from planners.auto import auto

# what, spacing (mm; z, y, x), shape (voxels), cases, channels, labels, memory (GB), bits
DATA: list[tuple[str, Any, Any, int, list[str], int, int, str]] = [
    ("Hippocampus", (1, 1, 1), (36, 50, 35), 260, ["MRI"], 2, 8, "32"),
    ("SunnybrookLV", (10, 1.367, 1.367), (10, 220, 220), 6, ["MRI"], 1, 8, "32"),
    ("liver CT", (1, 0.767, 0.767), (432, 512, 512), 131, ["CT"], 2, 8, "16"),
    ("liver CT", (1, 0.767, 0.767), (432, 512, 512), 131, ["CT"], 2, 80, "16"),
    ("prostate MR", (3.6, 0.625, 0.625), (20, 320, 320), 32, ["T2", "ADC"], 2, 8, "16"),
    ("brain MR", (1, 1, 1), (138, 170, 138), 484, ["FLAIR", "T1", "T1ce", "T2"], 3, 8, "16"),
    ("cardiac MR", (5, 1.5625, 1.5625), (9, 256, 216), 200, ["MRI"], 3, 8, "16"),
    ("61 labels", (1.5, 1.5, 1.5), (300, 250, 250), 1500, ["CT"], 61, 24, "16"),
]


def described(
    what: str,
    spacing: tuple[float, float, float],
    shape: tuple[int, int, int],
    cases: int,
    channels: Sequence[str],
    labels: int,
) -> tuple[Dataset, Fingerprint]:
    """Return a dataset of equal cases, and its fingerprint."""
    names = {"background": 0, **{f"label {i}": i for i in range(1, labels + 1)}}
    dataset = Dataset(
        path=Path(what),
        name=what,
        channel_names=tuple(channels),
        labels=Labels.from_dataset_json(names, None),
        file_ending=".nii.gz",
        groups={},
        num_training=cases,
        description={},
    )
    case = CaseFingerprint(name="case", shape=shape, cropped_shape=shape, spacing=spacing, label_voxels={1: 1})
    seen = Intensities(mean=0, median=0, std=1, min=-1, max=1, percentile_00_5=-1, percentile_99_5=1)
    return dataset, Fingerprint(dims=3, cases=(case,) * cases, intensities=(seen,) * len(channels))


def main() -> None:
    """Print the table; with --output also write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    lines = [
        "| data | memory, bits | chosen | configuration | patch (batch) | strides | computed GB | processor seconds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for what, spacing, shape, cases, channels, labels, memory, bits in DATA:
        dataset, fingerprint = described(what, spacing, shape, cases, channels, labels)
        started = time.process_time()
        plan = auto.plan(dataset, fingerprint, PlanOptions(memory=memory, precision=bits, trial=False))
        seconds = time.process_time() - started
        for name, made in plan.configurations.items():
            patch = ", ".join(map(str, made.patch_size))
            strides = " ".join("".join(map(str, stride)) for stride in made.strides)
            chosen = plan.decision.configuration
            lines.append(
                f"| {what} | {memory} GB, {bits} | {chosen} | {name} | {patch} ({made.batch_size}) "
                f"| {strides} | {made.memory.estimated_bytes / GIGABYTE:.2f} | {seconds:.1f} |"
            )
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
