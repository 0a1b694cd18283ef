"""Batches of patches, in worker processes, each batch decided by its number alone.

Batch number n is drawn from a generator seeded with (seed, n). It is therefore the same whatever the number of
workers, and a resumed run sees exactly the batches it would have seen.
"""

import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from random import seed as seed_python
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgenerators.dataloading.data_loader import SlimDataLoaderBase
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from torch import Tensor

from autocrossdim.data.labels import Labels
from autocrossdim.data.store import Store, StoredCase
from autocrossdim.device import memory_format_for
from autocrossdim.errors import UserError
from autocrossdim.plan import Configuration
from trainers.augment import apply_affine, draw_affine, intensity_transforms, source_shape
from trainers.loss import IGNORED

SECONDS_BETWEEN_LOOKS = 1.0  # at whether the workers are alive
SECONDS_TO_END = 3.0  # given to the workers to end by themselves


class PatchLoader(SlimDataLoaderBase):  # type: ignore[misc]
    """Draws batches {"data": (B, C, ...), "target": ..., "names": [...]} from a store.

    Args:
        store: preprocessed cases.
        names: cases to draw from, all equally likely.
        configuration: patch and batch.
        labels: turn label values into targets.
        seed: of everything drawn.
        first: number of the first batch.
        foreground_share: of a batch's patches, centred on a voxel of a class; at least one.
        augment: turn, scale and change intensities, or give patches as they are.
        workers: among how many loaders the batches are dealt out.
    """

    def __init__(
        self,
        store: Store,
        names: Sequence[str],
        configuration: Configuration,
        labels: Labels,
        seed: int,
        first: int = 0,
        foreground_share: float = 0.33,
        augment: bool = True,
        workers: int = 1,
    ) -> None:
        super().__init__(None, configuration.batch_size, workers)
        self.store = store
        self.names = names
        self.configuration = configuration
        self.labels = labels
        self.seed = seed
        self.next_batch = first
        self.foreground = max(1, round(configuration.batch_size * foreground_share))
        self.augment = augment
        self.transform = intensity_transforms(configuration.dims, configuration.patch_size) if augment else None
        self._open: dict[str, StoredCase] = {}

    def set_thread_id(self, thread_id: int) -> None:
        """Called once in each worker process: take every n-th batch, on one thread, and die with the parent."""
        super().set_thread_id(thread_id)
        self.next_batch += thread_id
        torch.set_num_threads(1)
        # Ctrl-C reaches every process of a terminal; the parent is the one to act on it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _die_with_parent()

    def generate_train_batch(self) -> dict[str, Any]:
        """Return the next batch, or what went wrong as {"fault": message} or {"error": traceback}.

        An exception would be lost in the worker.
        """
        try:
            return self.batch(self.next_batch)
        except UserError as error:
            return {"fault": str(error)}
        except Exception:
            return {"error": traceback.format_exc()}
        finally:
            self.next_batch += self.number_of_threads_in_multithreaded

    def batch(self, number: int) -> dict[str, Any]:
        """Return batch `number`."""
        random = np.random.default_rng((self.seed, number))
        # batchgenerators draws from both global generators.
        np.random.seed(random.integers(2**32))  # noqa: NPY002
        seed_python(int(random.integers(2**32)))
        names = [self.names[int(random.integers(len(self.names)))] for _ in range(self.batch_size)]
        wanted = [i >= self.batch_size - self.foreground for i in range(self.batch_size)]
        patches = [self._patch(name, on_class, random) for name, on_class in zip(names, wanted, strict=True)]
        data = np.stack([image for image, _ in patches])
        target = np.stack([self._target(label) for _, label in patches])
        if self.transform is not None:
            # Transforms want a channel axis on the target.
            moved = self.transform(data=data, seg=target if self.labels.has_regions else target[:, None])
            data, target = moved["data"], moved["seg"] if self.labels.has_regions else moved["seg"][:, 0]
        # Arrays, not tensors: a tensor sent by a worker that ends before it is received cannot be opened any more.
        return {
            "data": np.ascontiguousarray(data, dtype=np.float32),
            "target": np.ascontiguousarray(target),
            "names": names,
        }

    def _target(self, label: np.ndarray) -> np.ndarray:
        if not self.labels.has_regions:
            return self.labels.to_index(label).astype(np.int16)
        regions = self.labels.to_regions(label).astype(np.int16)
        if self.labels.ignore is not None:
            regions[:, label == self.labels.ignore] = IGNORED
        return regions

    def _patch(self, name: str, on_class: bool, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return image (C, *patch) and label (*patch) around a drawn centre."""
        case = self._case(name)
        patch = self.configuration.patch_size
        matrix = draw_affine(patch, random) if self.augment else None
        source = source_shape(patch, matrix)
        shape = case.label.shape
        centre = _centre(case, shape, on_class, (1, *patch)[-3:], random)
        # A turned patch is cut around the same centre, only wider.
        size = (self.configuration.slices, *source) if self.configuration.dims == 2 else source
        box = [[c - n // 2, c - n // 2 + n] for c, n in zip(centre, size, strict=True)]
        image = crop_and_pad_nd(case.image, box, 0)
        label = crop_and_pad_nd(case.label, box, min(self.labels.values))
        if self.configuration.dims == 2:
            # Neighbouring slices become channels; the label is the middle one's.
            image, label = image.reshape(-1, *image.shape[2:]), label[self.configuration.slices // 2]
        if matrix is None:
            return image, label
        return apply_affine(np.ascontiguousarray(image), label, patch, matrix)

    def _case(self, name: str) -> StoredCase:
        if name not in self._open:
            self._open[name] = self.store.open(name)
        return self._open[name]


def _centre(
    case: StoredCase,
    shape: tuple[int, ...],
    on_class: bool,
    patch: tuple[int, ...],
    random: np.random.Generator,
) -> tuple[int, ...]:
    """Draw the centre of a patch: on a voxel of a class present (each class alike), else anywhere.

    The patch is kept inside the image where it fits, and centred on the image where it does not.
    """
    if on_class and case.voxels:
        positions = case.voxels[sorted(case.voxels)[random.integers(len(case.voxels))]]
        wanted = positions[random.integers(len(positions))]
    else:
        wanted = random.integers(shape)
    centre = []
    for n, p, c in zip(shape, patch, wanted, strict=True):
        low, high = p // 2, n - p + p // 2
        centre.append(int(np.clip(c, low, high)) if high >= low else n // 2)
    return tuple(centre)


@contextmanager
def batches(loader: PatchLoader, workers: int) -> Iterator[Iterator[dict[str, Any]]]:
    """Run the loader in `workers` processes (0: in this one) and yield the iterator over its batches.

    Raises:
        UserError: a worker failed (with its traceback) or was killed.
    """
    if workers == 0:
        yield (_checked(loader.generate_train_batch()) for _ in iter(int, 1))
        return
    augmenter = MultiThreadedAugmenter(loader, None, workers, num_cached_per_queue=2, seeds=None)
    ended = threading.Event()
    watch = threading.Thread(target=_watch, args=(augmenter, ended), daemon=True)
    watch.start()
    try:
        yield _from_workers(augmenter)
    finally:
        ended.set()
        watch.join()
        augmenter._finish(timeout=SECONDS_TO_END)


def _watch(augmenter: MultiThreadedAugmenter, ended: threading.Event) -> None:
    """Give up as soon as a worker is dead.

    batchgenerators looks itself, but not while it reads the half-sent batch of a worker that was killed, which
    never ends.
    """
    while not ended.wait(SECONDS_BETWEEN_LOOKS):
        if not all(process.is_alive() for process in augmenter._processes):
            augmenter.abort_event.set()
            return


def _from_workers(augmenter: MultiThreadedAugmenter) -> Iterator[dict[str, Any]]:
    while True:
        try:
            batch = next(augmenter)
        except RuntimeError as error:
            raise UserError(
                "A process that prepares training patches was killed, most likely because memory ran out. "
                "Type the same command again to go on; a smaller batch or fewer workers need less."
            ) from error
        yield _checked(batch)


def _checked(batch: dict[str, Any]) -> dict[str, Any]:
    if "fault" in batch:
        raise UserError(batch["fault"])
    if "error" in batch:
        raise RuntimeError(f"A training patch could not be prepared:\n{batch['error']}")
    return batch


def _die_with_parent() -> None:
    """Ask the kernel to end this worker when its parent ends, however it ends (Linux only)."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(1)


def to_device(batch: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return data, channels last, and target on `device`; targets as the int64 that cross-entropy wants."""
    data, target = torch.from_numpy(batch["data"]).to(device), torch.from_numpy(batch["target"]).to(device)
    return data.contiguous(memory_format=memory_format_for(data.ndim - 2)), target.long()
