"""Memory of predicting large volumes with many labels, beside what the plan and the documentation promise.

    python benchmarks/large.py [--only NAME ...] [--output FILE]

Each row is planned by the planner for 8 GB, with the smallest encoder, and predicted by one network with random
weights, without mirroring, in a process of its own. What is promised is the sum of

- the plan's memory of predicting a batch of tiles,
- the accumulators: labels x patch depth x slice in float32, at most 2 GiB (docs/explanation/prediction.md),
- the arrays of the case: the image as read and as preprocessed, in float32, and the label.
"""

import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from volume import MEGABYTE, Measured, row_parser, run_row, write_volume

# Volume (voxels), its spacing (mm), spacing and shape of the training data, and the number of labels with background.
ROWS: dict[str, dict[str, Any]] = {
    "chest": {"shape": (200, 512, 512), "mm": (1.5, 0.8, 0.8), "spacing": (1.5,) * 3, "labels": 61},
    "body": {"shape": (600, 512, 512), "mm": (1.0, 0.8, 0.8), "spacing": (1.5,) * 3, "labels": 61},
    "largest": {"shape": (1200, 1024, 1024), "mm": (0.5,) * 3, "spacing": (1.5,) * 3, "labels": 5},
}
MEDIAN_SHAPE = (300, 250, 250)


def make_plan(job: dict[str, Any]) -> Any:
    """Return the plan for a job, with the configuration `dx`."""
    from plan import described

    from autocrossdim.records.plan_options import PlanOptions
    from planners.auto import dx

    dataset, fingerprint = described("Large", job["spacing"], MEDIAN_SHAPE, 100, ["MR"], job["labels"] - 1)
    return dx.plan(dataset, fingerprint, PlanOptions(memory=8, encoder="test_efficientnet", trial=False))


def run(job: dict[str, Any], folder: Path) -> None:
    """Segment the folder's volume through the same call as the command line."""
    import torch

    import autocrossdim
    from autocrossdim.inference.fuse import fuse
    from autocrossdim.inference.model import Model
    from autocrossdim.inference.predictor import Predictor
    from autocrossdim.networks.build import build_network

    torch.set_num_threads(job["threads"])
    plan = make_plan(job)
    configuration = plan.configurations["dx"]
    network = build_network(plan.network_plan(configuration), None)
    fuse(network)
    network = network.to(memory_format=torch.channels_last_3d).eval()
    predictor = Predictor([Model(plan, configuration, [network])], mirroring=False)
    Predictor.load = lambda *_, **__: predictor  # type: ignore[method-assign,assignment]
    with Measured():
        autocrossdim.predict("benchmark", folder / "images", folder / "ours", overwrite=True)


def promised(job: dict[str, Any]) -> tuple[str, list[float]]:
    """Return the patch, and the MB of a batch of tiles, of the accumulators and of the arrays of the case."""
    from autocrossdim.inference.residence import HELD_BYTES
    from autocrossdim.preprocessing.resample import shape_for

    configuration = make_plan(job).configurations["dx"]
    depth, height, width = configuration.patch_size
    _, y, x = shape = shape_for(job["shape"], job["mm"], configuration.spacing)
    accumulators = min(HELD_BYTES, 4 * job["labels"] * depth * max(y, height) * max(x, width))
    voxels, resampled = (n[0] * n[1] * n[2] for n in (job["shape"], shape))
    label = voxels
    parts = [configuration.memory.inference_bytes, accumulators, 4 * voxels + 4 * resampled + label]
    patch = f"{depth} x {height} x {width} ({configuration.batch_size})"
    return patch, [part / MEGABYTE for part in parts]


def main() -> None:
    """Print the table; with --output also write it."""
    parser = row_parser(__doc__)
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    arguments = parser.parse_args()
    if arguments.row is not None:
        run(arguments.row, arguments.folder)
        return
    lines = [
        f"Measured on: {platform.machine()}, 1 thread.",
        "",
        "| volume | labels | patch (batch) | promised MB: tiles + accumulators + arrays | measured MB beyond imports | "
        "peak MB | processor time |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for name in arguments.only:
        job = ROWS[name]
        patch, parts = promised(job)
        with tempfile.TemporaryDirectory() as temporary:
            write_volume(job, Path(temporary))
            row = run_row(__file__, sys.executable, "ours", job, Path(temporary), threads=1)
        sizes = " x ".join(map(str, job["shape"]))
        terms = " + ".join(f"{part:.0f}" for part in parts)
        lines.append(
            f"| {sizes} | {job['labels']} | {patch} | {sum(parts):.0f}: {terms} | {row['more']:.0f} | "
            f"{row['peak']:.0f} | {row['cpu']:.0f} s |"
        )
        print(lines[-1], flush=True)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
