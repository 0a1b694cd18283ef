"""What `predict.py` and `preprocess.py` have in common: a volume, both tools' plans for it, and what is measured."""

import argparse
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

from peak import forget_peak, peak, resident

SPACING = (1.0, 1.0, 1.0)
MEGABYTE = 2**20


def row_parser(description: str | None) -> argparse.ArgumentParser:
    """Return the parser of a table's script, which calls itself for each measurement with hidden options."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file to write the table to")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--who", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


class Measured:
    """Time and memory of what is done inside, beyond the imports before; printed as a line of JSON."""

    def __enter__(self) -> "Measured":
        forget_peak()
        self.cpu, self.before, self.wall = time.process_time(), resident(), time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        cpu, wall = time.process_time() - self.cpu, time.perf_counter() - self.wall
        more = (peak() - self.before) / MEGABYTE
        print(json.dumps({"cpu": cpu, "wall": wall, "peak": peak() / MEGABYTE, "more": more}))


def label_names(job: dict[str, Any]) -> dict[str, int]:
    """Return the labels of the job as dataset.json names them."""
    return {"background": 0} | {f"label {k}": k for k in range(1, job["labels"])}


def our_plan(job: dict[str, Any]) -> Any:
    """Return our plan with the configuration `dx`."""
    from autocrossdim.records.labels import Labels
    from autocrossdim.records.normalization import Normalization
    from autocrossdim.records.plan import Configuration, Cost, Decision, Memory, Plan
    from planners.topology import topology

    sizes = topology(tuple(job["patch"]), SPACING, 5)
    configuration = Configuration(
        name="dx",
        dims=3,
        spacing=SPACING,
        median_shape=tuple(job["shape"]),
        patch_size=tuple(job["patch"]),
        batch_size=2,
        encoder="efficientnet_b0",
        strides=sizes.strides,
        kernel_sizes=sizes.kernel_sizes,
        memory=Memory(budget_bytes=0, estimated_bytes=0, inference_bytes=0),
        cost=Cost(multiply_adds_per_case=0),
    )
    return Plan(
        dataset="Dataset999_Benchmark",
        dims=3,
        channel_names=("MR",),
        labels=Labels.from_dataset_json(label_names(job)),
        file_ending=".nii.gz",
        transpose=(0, 1, 2),
        normalization=(Normalization(scheme="zscore"),),
        decision=Decision(anisotropy=1, threshold=3, configuration="dx", alternatives=(), reasons=()),
        configurations={"dx": configuration},
    )


def nnunet_plans(job: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return nnU-Net's plans with the configuration `3d_fullres`, and its dataset.json."""
    strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2]]  # its planner's for this patch
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "benchmark",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": job["patch"],
        "median_image_size_in_voxels": job["shape"],
        "spacing": SPACING,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg_kwargs": resampling | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities_kwargs": resampling | {"order": 1},
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": {
                "n_stages": 5,
                "features_per_stage": [32, 64, 128, 256, 320],
                "conv_op": "torch.nn.modules.conv.Conv3d",
                "kernel_sizes": [[3, 3, 3]] * 5,
                "strides": strides,
                "n_conv_per_stage": [2] * 5,
                "n_conv_per_stage_decoder": [2] * 4,
                "conv_bias": True,
                "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
                "norm_op_kwargs": {"eps": 1e-5, "affine": True},
                "dropout_op": None,
                "dropout_op_kwargs": None,
                "nonlin": "torch.nn.LeakyReLU",
                "nonlin_kwargs": {"inplace": True},
            },
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    plans = {
        "dataset_name": "Dataset999_Benchmark",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}},
        "configurations": {"3d_fullres": configuration},
    }
    dataset = {
        "channel_names": {"0": "MR"},
        "labels": label_names(job),
        "file_ending": ".nii.gz",
    }
    return plans, dataset


def write_volume(job: dict[str, Any], folder: Path) -> None:
    """Write smooth noise as int16, which compresses as scans do."""
    import numpy as np
    import SimpleITK as sitk

    coarse = np.random.default_rng(0).normal(500, 200, [n // 8 + 1 for n in job["shape"]]).astype(np.int16)
    whole = coarse.repeat(8, 0).repeat(8, 1).repeat(8, 2)[tuple(slice(n) for n in job["shape"])]
    image = sitk.GetImageFromArray(np.ascontiguousarray(whole))
    image.SetSpacing(job["mm"][::-1])
    (folder / "images").mkdir(exist_ok=True)
    sitk.WriteImage(image, str(folder / "images" / "a_0000.nii.gz"), useCompression=True)


def run_row(script: str, python: str, who: str, job: dict[str, Any], folder: Path, threads: int) -> dict[str, float]:
    """Run one row of a script in a process of its own."""
    environment = os.environ | {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        **{name: str(folder) for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")},
        "nnUNet_def_n_proc": str(threads),
    }
    row = json.dumps(job | {"threads": threads})
    command = [python, script, "--row", row, "--who", who, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result
