"""Time and memory of `predict`, beside nnU-Net's on the same volume, and how memory grows.

    python benchmarks/predict.py [--nnunet PYTHON] [--output FILE] [--threads 1]

Every row is a process of its own that reads a NIfTI file, segments it and writes the result. Networks have random
weights. `--nnunet` names the Python of an environment with nnU-Net 2.8.1; without it only the rows without it are run.

Time is the processor time of the whole process without imports, which other programs on the machine disturb least;
with one thread it is the wall time of a machine that does nothing else. Memory is the peak of the resident set;
in brackets, what it is more than after the imports.
"""

import platform
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from volume import MEGABYTE, Measured, nnunet_plans, our_plan, row_parser, run_row, write_volume

PATCH = (48, 80, 80)

# name, what is compared: volume (voxels), its spacing (mm), labels, folds, mirroring, patch, stand-in network?
COMPARED: list[dict[str, Any]] = [
    {"shape": (60, 140, 140), "mm": (1.0, 0.8, 0.8), "labels": 3, "folds": 2, "mirror": True, "patch": PATCH},
    {"shape": (96, 200, 200), "mm": (1.0, 0.8, 0.8), "labels": 3, "folds": 1, "mirror": False, "patch": PATCH},
    {"shape": (128, 256, 256), "mm": (1.0, 0.8, 0.8), "labels": 31, "folds": 1, "mirror": False, "patch": PATCH},
]
ALONE: list[dict[str, Any]] = [
    {"shape": (192, 384, 384), "mm": (1.0, 1.0, 1.0), "labels": 5},
    {"shape": (384, 384, 384), "mm": (1.0, 1.0, 1.0), "labels": 5},
    {"shape": (600, 512, 512), "mm": (1.0, 1.0, 1.0), "labels": 61},
    {"shape": (600, 768, 768), "mm": (1.0, 1.0, 1.0), "labels": 5},
]


def run_ours(job: dict[str, Any], folder: Path) -> None:
    """Segment the folder's volume through the same call as the command line."""
    import torch

    import autocrossdim
    from autocrossdim.inference.fuse import fuse
    from autocrossdim.inference.model import Model
    from autocrossdim.inference.predictor import Predictor
    from autocrossdim.networks.build import build_network

    torch.set_num_threads(job["threads"])
    plan = our_plan(job)
    configuration = plan.configurations["dx"]
    networks = []
    for _ in range(job["folds"]):
        if job["stand_in"]:
            networks.append(torch.nn.Conv3d(1, job["labels"], 1).eval())
        else:
            network = build_network(plan.network_plan(configuration), None)
            fuse(network)  # what `Model.load` does
            networks.append(network.to(memory_format=torch.channels_last_3d).eval())
    predictor = Predictor([Model(plan, configuration, networks)], mirroring=job["mirror"])
    Predictor.load = lambda *_, **__: predictor  # type: ignore[method-assign,assignment]
    with Measured():
        autocrossdim.predict("benchmark", folder / "images", folder / "ours", overwrite=True)


def run_nnunet(job: dict[str, Any], folder: Path) -> None:
    """Segment the folder's volume with nnU-Net's predictor, in the process itself as we do."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.set_num_threads(job["threads"])
    plans, dataset = nnunet_plans(job)
    manager = PlansManager(plans)
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    if job["stand_in"]:
        network: Any = torch.nn.Conv3d(1, job["labels"], 1)
    else:
        network = get_network_from_plans(
            architecture["network_class_name"],
            architecture["arch_kwargs"],
            architecture["_kw_requires_import"],
            1,
            job["labels"],
            deep_supervision=False,
        )
    predictor = nnUNetPredictor(use_mirroring=job["mirror"], device=torch.device("cpu"), allow_tqdm=False)
    weights = [{name: value.clone() for name, value in network.state_dict().items()} for _ in range(job["folds"])]
    predictor.manual_initialization(
        network, manager, manager.get_configuration("3d_fullres"), weights, dataset, "nnUNetTrainer", (0, 1, 2)
    )
    (folder / "nnunet").mkdir(exist_ok=True)
    with Measured():
        predictor.predict_from_files_sequential(
            [[str(folder / "images" / "a_0000.nii.gz")]], [str(folder / "nnunet" / "a")], False, True
        )


def measure(python: str, who: str, job: dict[str, Any], folder: Path, threads: int) -> dict[str, float]:
    """Run one row in a process of its own."""
    defaults = {"folds": 1, "mirror": False, "patch": (96, 96, 96), "stand_in": True}
    return run_row(__file__, python, who, defaults | job, folder, threads)


def compare(job: dict[str, Any], nnunet: str, threads: int) -> str:
    """Return a line of the table of comparisons."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_volume(job, folder)
        ours = measure(sys.executable, "ours", job, folder, threads)
        theirs = measure(nnunet, "nnunet", job, folder, threads)
    network = "the same one-layer network" if job["stand_in"] else "each its own"
    mirrored = "yes" if job["mirror"] else "no"
    return (
        f"| {network} | {_sizes(job['shape'])} | {job['labels']} | {job['folds']} | {mirrored} | "
        f"{_told(ours)} | {_told(theirs)} | {theirs['cpu'] / ours['cpu']:.1f} | {ours['peak'] / theirs['peak']:.2f} "
        f"({ours['more'] / theirs['more']:.2f}) |"
    )


def _told(row: dict[str, float]) -> str:
    return f"{row['cpu']:.0f} s, {row['peak']:.0f} MB ({row['more']:.0f})"


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def main() -> None:
    """Print the tables; with --output also write them."""
    parser = row_parser(__doc__)
    parser.add_argument("--nnunet", metavar="PYTHON")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", choices=("comparison", "growth"), help="One of the two tables.")
    parser.add_argument("--note", default="", help="What else the machine did, for the record.")
    arguments = parser.parse_args()
    if arguments.row is not None:
        (run_ours if arguments.who == "ours" else run_nnunet)(arguments.row, arguments.folder)
        return
    lines = [f"Measured on: {platform.machine()}, {arguments.threads} thread(s). {arguments.note}".strip(), ""]

    def tell(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    if arguments.nnunet and arguments.only != "growth":
        tell("## Beside nnU-Net 2.8.1")
        tell("")
        tell(
            f"Patch {_sizes(PATCH)}, target spacing 1 mm. DX-Net with EfficientNet-B0; PlainConvUNet as it is planned."
        )
        tell("")
        tell(
            "| network | volume | labels | folds | mirrored | ours: time, peak (more than imports) | nnU-Net | "
            "times faster | share of its memory |"
        )
        tell("|---|---|---|---|---|---|---|---|---|")
        for job in COMPARED:
            tell(compare(job | {"stand_in": job["labels"] > 30}, arguments.nnunet, arguments.threads))
        tell("")
    if arguments.only != "comparison":
        measure_growth(tell, arguments.threads)
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure_growth(tell: Callable[[str], None], threads: int) -> None:
    """Measure larger and larger volumes."""
    tell("## How memory grows")
    tell("")
    tell(
        "One-layer network, patch 96 x 96 x 96; arrays: the image as read and as preprocessed, float32, and the label."
    )
    tell("")
    tell("| volume | spacing (mm) | labels | time | peak MB | more than imports | the case's arrays MB |")
    tell("|---|---|---|---|---|---|---|")
    for job in ALONE:
        with tempfile.TemporaryDirectory() as name:
            write_volume(job, Path(name))
            row = measure(sys.executable, "ours", job, Path(name), threads)
        voxels = job["shape"][0] * job["shape"][1] * job["shape"][2]
        resampled = voxels * job["mm"][0] * job["mm"][1] * job["mm"][2]
        arrays = (4 * voxels + 4 * resampled + voxels) / MEGABYTE
        tell(
            f"| {_sizes(job['shape'])} | {_sizes(job['mm'])} | {job['labels']} | {row['cpu']:.0f} s | "
            f"{row['peak']:.0f} | {row['more']:.0f} | {arrays:.0f} |"
        )


if __name__ == "__main__":
    main()
