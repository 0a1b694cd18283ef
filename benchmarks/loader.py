"""Augmented patches per second of one core: this loader against nnU-Net's own.

    python benchmarks/loader.py --nnunet /path/to/python/with/nnunetv2 [--core 0] [--repeats 5] [--output FILE]

Both read the same volumes, each from its own store, on one thread in one process without workers, and take turns.
nnU-Net's transforms and loader are its own, called in its own environment. Seconds are those the process computed (user
and system), so that what else the machine does counts as little as possible; the files are in the page cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

LABELS = {"background": 0, "organ": 1, "nodule": 2}
CASES = 3
# patch, shape of the volumes, batch, patches a repeat
ROWS: list[tuple[tuple[int, ...], tuple[int, int, int], int, int]] = [
    ((40, 56, 40), (36, 50, 35), 2, 800),
    ((128, 128, 128), (160, 192, 192), 2, 40),
    ((20, 320, 256), (24, 320, 320), 2, 60),
    ((512, 512), (12, 512, 512), 4, 200),
]


def write_volumes(folder: Path, patch: tuple[int, ...], shape: tuple[int, int, int]) -> None:
    """Store a few made-up cases as this package does, and as plain arrays for nnU-Net's own store."""
    from autocrossdim.data.dataset import Case
    from autocrossdim.data.geometry import Geometry
    from autocrossdim.data.phantoms import ISOTROPIC_SPACING, nodules
    from autocrossdim.preprocessing.case import Placement, Preprocessed
    from autocrossdim.preprocessing.store import Store
    from autocrossdim.records.labels import Labels
    from autocrossdim.records.plan import Plan

    store = Store(folder / "ours")
    store.root.mkdir(parents=True)
    plan = Plan.model_construct(labels=Labels.from_dataset_json(LABELS))
    geometry = Geometry(shape, ISOTROPIC_SPACING, (0,) * 3, tuple(np.eye(3).ravel().tolist()), dims=3)
    placement = Placement(
        original_shape=shape,
        transpose=(0, 1, 2),
        box=tuple((0, n) for n in shape),
        spacing=ISOTROPIC_SPACING,
        target=ISOTROPIC_SPACING,
        shape=shape,
    )
    for i in range(CASES):
        image, label = nodules(np.random.default_rng(i), shape)
        image = ((image - image.mean()) / image.std()).astype(np.float32)
        name = f"case_{i}"
        done = Preprocessed(image[None], label, placement)
        store.write(Case(name, (), folder / name), geometry, done, plan, (1, *patch)[-3:])
        np.save(folder / f"{name}.npy", image[None])
        np.save(folder / f"{name}_label.npy", label)


def ours(folder: Path, patch: tuple[int, ...], batch: int) -> Iterator[Any]:
    """The image patches of our batches."""
    from autocrossdim.preprocessing.store import Store
    from autocrossdim.records.labels import Labels
    from autocrossdim.records.plan import Configuration
    from trainers.loader import PatchLoader
    from trainers.settings import Settings

    configuration = Configuration.model_construct(dims=len(patch), patch_size=patch, batch_size=batch, slices=1)
    names = [f"case_{i}" for i in range(CASES)]
    loader = PatchLoader(
        Store(folder / "ours"),
        names,
        configuration=configuration,
        labels=Labels.from_dataset_json(LABELS),
        settings=Settings(seed=0, augmentation="standard"),
    )
    for number in count():
        yield loader.batch(number).data


def nnunet(folder: Path, patch: tuple[int, ...], batch: int, nearest: bool) -> Iterator[Any]:
    """The image patches of nnU-Net's batches.

    With `nearest`, labels are resampled as ours are, else one by one linearly, as nnU-Net does.
    """
    os.environ.update(nnUNet_raw=".", nnUNet_preprocessed=".", nnUNet_results=".")
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
    from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    store = folder / "nnunet"
    if not store.exists():
        store.mkdir()
        for i in range(CASES):
            image = np.load(folder / f"case_{i}.npy")
            label = np.load(folder / f"case_{i}_label.npy")[None].astype(np.int16)
            random = np.random.default_rng(0)
            found = {value: np.argwhere(label == value) for value in LABELS.values() if value}
            locations = {value: random.permutation(where)[:10_000] for value, where in found.items()}
            layout = [comp_blosc2_params(array.shape, patch, array.itemsize) for array in (image, label)]
            nnUNetDatasetBlosc2.save_case(
                image,
                label,
                {"class_locations": locations},
                str(store / f"case_{i}"),
                chunks=layout[0][1],
                blocks=layout[0][0],
                chunks_seg=layout[1][1],
                blocks_seg=layout[1][0],
            )
    trainer = SimpleNamespace(
        configuration_manager=SimpleNamespace(patch_size=patch), print_to_log_file=lambda *_, **__: None
    )
    rotation, flat, first_patch, mirrored = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(
        trainer
    )
    # Without deep supervision, as ours makes its targets' copies elsewhere.
    transforms = nnUNetTrainer.get_training_transforms(patch, rotation, None, mirrored, flat)
    if nearest:
        for transform in transforms.transforms:
            if isinstance(transform, SpatialTransform):
                transform.mode_seg = "nearest"
    loader = nnUNetDataLoader(
        nnUNetDatasetBlosc2(str(store)),
        batch,
        first_patch,
        patch,
        LabelManager(LABELS, None),
        oversample_foreground_percent=0.33,
        transforms=transforms,
    )
    while True:
        yield next(loader)["data"]


def serve(which: str, folder: Path, patch: tuple[int, ...], batch: int) -> None:
    """Answer each "way patches" on standard input with the seconds that making so many patches took."""
    import torch

    torch.set_num_threads(1)
    if which == "ours":
        ways = {"ours": ours(folder, patch, batch)}
    else:
        ways = {way: nnunet(folder, patch, batch, way == "nearest") for way in ("linear", "nearest")}
    for batches in ways.values():
        for _ in range(4):  # nnU-Net tries out convolutions first; the files come into the page cache
            assert tuple(next(batches).shape) == (batch, 1, *patch)
    print("ready", flush=True)
    for line in sys.stdin:
        way, patches = line.split()
        started = time.process_time()
        for _ in range(int(patches) // batch):
            next(ways[way])
        print(time.process_time() - started, flush=True)


class Server:
    """One loader in a process of its own."""

    def __init__(self, python: str, which: str, core: int, folder: Path, patch: tuple[int, ...], batch: int) -> None:
        settings = json.dumps([which, str(folder), patch, batch])
        self.process = subprocess.Popen(
            [python, __file__, "--serve", settings],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        self._answer("ready")

    def rate(self, way: str, patches: int) -> float:
        """Patches per second of computing."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{way} {patches}\n")
        self.process.stdin.flush()
        return patches / float(self._answer())

    def _answer(self, expected: str | None = None) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            # nnU-Net may greet before.
            if expected is None or line.strip() == expected:
                return line.strip()
        raise SystemExit("a loader ended; its message is above")

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def measure(arguments: argparse.Namespace) -> list[str]:
    """Return the table's lines."""
    lines = [
        "| patch | ours, patches/s | nnU-Net's | ratio: median (least) | nnU-Net's, labels nearest | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for patch, shape, batch, patches in ROWS:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_volumes(folder, patch, shape)
            own = Server(sys.executable, "ours", arguments.core, folder, patch, batch)
            other = Server(arguments.nnunet, "nnunet", arguments.core, folder, patch, batch)
            servers = {"ours": own, "linear": other, "nearest": other}
            rates: dict[str, list[float]] = {way: [] for way in servers}
            for _ in range(arguments.repeats):
                for way, server in servers.items():
                    rates[way].append(server.rate(way, round(patches * arguments.share)))
                last = {way: f"{some[-1]:.2f}" for way, some in rates.items()}
                print(" x ".join(map(str, patch)), last, flush=True)
            own.close()
            other.close()
        middle = {way: statistics.median(some) for way, some in rates.items()}
        columns = [" x ".join(map(str, patch)), f"{middle['ours']:.1f}"]
        for way in ("linear", "nearest"):
            ratios = [a / b for a, b in zip(rates["ours"], rates[way], strict=True)]
            columns += [f"{middle[way]:.1f}", f"{statistics.median(ratios):.2f} ({min(ratios):.2f})"]
        lines.append(f"| {' | '.join(columns)} |")
    return lines


def main() -> None:
    """Print the table; with --output also write it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nnunet", help="the Python of an environment with nnunetv2 2.8.1")
    parser.add_argument("--core", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="of the patches a repeat, for a quick look")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        which, folder, patch, batch = json.loads(arguments.serve)
        serve(which, Path(folder), tuple(patch), batch)
        return
    if not arguments.nnunet:
        parser.error("--nnunet: give the Python to compare with")
    lines = measure(arguments)
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
