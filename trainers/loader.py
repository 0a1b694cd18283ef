"""Batches of patches, in worker processes, each batch decided by its number alone.

Batch number n is drawn from a generator seeded with (seed, n). It is therefore the same whatever the number of
workers, and a resumed run sees exactly the batches it would have seen.
"""

import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgenerators.dataloading.data_loader import SlimDataLoaderBase
from batchgenerators.dataloading.multi_threaded_augmenter import MultiThreadedAugmenter
from torch import Tensor

from autocrossdim.preprocessing.store import Store, StoredCase
from autocrossdim.records.labels import Labels
from autocrossdim.records.plan import Configuration
from autocrossdim.system.device import memory_format_for
from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import die_with_parent
from trainers.augment import P_AFFINE, apply_warp, change_intensities, draw_mirroring, draw_warp, source_shape
from trainers.loss import IGNORED

UNDECLARED = -2  # target of a label value that dataset.json does not declare
SECONDS_BETWEEN_LOOKS = 1.0  # at whether the workers are alive
SECONDS_TO_END = 3.0  # given to the workers to end by themselves


class PatchLoader(SlimDataLoaderBase):  # type: ignore[misc]
    """Draws batches {"data": (B, C, ...), "target": ..., "names": [...]} from a store.

    Args:
        store: preprocessed cases.
        names: cases to draw from; each is drawn once before any is drawn again.
        configuration: patch and batch.
        labels: turn label values into targets.
        seed: of everything drawn.
        first: number of the first batch.
        foreground_share: of a batch's patches, centred on a voxel of a class; at least one.
        augment: turn, scale, mirror and change intensities, or give patches as they are.
        workers: among how many loaders the batches are dealt out.
        affine: probability that a patch is turned, and that it is scaled; nnU-Net's is 0.2.
        elastic: probability that a patch is also bent; nnU-Net's is 0.
        share: of every batch, the patches with these numbers; a process of several gives its own.
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
        affine: float = P_AFFINE,
        elastic: float = 0.0,
        share: slice = slice(None),
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
        self.affine, self.elastic = affine, elastic
        self.share = share
        self._targets = _target_table(labels)
        # Most datasets: classes 0, 1, 2, ... and nothing to ignore.
        self._values_are_targets = not labels.has_regions and torch.equal(
            self._targets[0, :-1], torch.arange(len(labels.values), dtype=torch.int16)
        )
        self._open: dict[str, StoredCase] = {}
        self._parent = os.getpid()

    def set_thread_id(self, thread_id: int) -> None:
        """Called once in each worker process: take every n-th batch, on one thread, and die with the parent."""
        super().set_thread_id(thread_id)
        self.next_batch += thread_id
        torch.set_num_threads(1)
        # Ctrl-C reaches every process of a terminal; the parent is the one to act on it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        die_with_parent(self._parent)

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
        """Return batch `number`, or what is ours of it."""
        chosen = list(enumerate(self._names(number)))[self.share]
        # Arrays, not tensors: a tensor sent by a worker that ends before it is received cannot be opened any more.
        data, target = [], []
        with _one_thread():
            for i, name in chosen:
                # A patch depends on its place alone, not on the others of its batch, which another process may draw.
                random = np.random.default_rng((self.seed, number, 2 + i))
                image, label = self._patch(name, i >= self.batch_size - self.foreground, random)
                data.append(image)
                target.append(self._target(label))
        return {"data": np.stack(data), "target": np.stack(target), "names": [name for _, name in chosen]}

    def _names(self, number: int) -> list[str]:
        """Cases of a batch. They are dealt like cards: all in a drawn order, then all in another.

        Drawn independently, a third of the cases (1/e) would be unseen after as many patches as there are cases.
        """
        count = len(self.names)
        draws = range(number * self.batch_size, (number + 1) * self.batch_size)
        rounds = range(draws[0] // count, draws[-1] // count + 1)
        order = {n: np.random.default_rng((self.seed, n, 1)).permutation(count) for n in rounds}
        return [self.names[order[draw // count][draw % count]] for draw in draws]

    def _target(self, label: np.ndarray) -> np.ndarray:
        """Return (*patch) indices, or (R, *patch) regions, int16."""
        if self._values_are_targets and label.max() <= self.labels.values[-1]:
            return label.astype(np.int16)
        values = torch.from_numpy(label.astype(np.int32)).flatten().clamp_(0, self._targets.shape[1] - 1)
        looked_up = torch.stack([row.index_select(0, values) for row in self._targets])
        target: np.ndarray = looked_up.numpy().reshape(-1, *label.shape)
        if target.min() == UNDECLARED:
            found = np.unique(label[target[0] == UNDECLARED]).tolist()
            raise UserError(f"label value(s) {found} are not declared in dataset.json.")
        return target if self.labels.has_regions else target[0]

    def _patch(self, name: str, on_class: bool, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return image (C, *patch), float32, and label (*patch) around a drawn centre."""
        case = self._case(name)
        patch = self.configuration.patch_size
        warp = draw_warp(patch, random, self.elastic, self.affine) if self.augment else None
        source = source_shape(patch, warp)
        shape = case.label.shape
        centre = _centre(case, shape, on_class, (1, *patch)[-3:], random)
        # A warped patch is cut around the same centre, only wider.
        size = (self.configuration.slices, *source) if self.configuration.dims == 2 else source
        box = [[c - n // 2, c - n // 2 + n] for c, n in zip(centre, size, strict=True)]
        image = crop_and_pad_nd(case.image, box, 0)
        label = crop_and_pad_nd(case.label, box, min(self.labels.values))
        if self.configuration.dims == 2:
            # Neighbouring slices become channels; the label is the middle one's.
            image, label = image.reshape(-1, *image.shape[2:]), label[self.configuration.slices // 2]
        image = np.ascontiguousarray(image, dtype=np.float32)
        if warp is not None:
            image, label = apply_warp(image, label, patch, warp)
        if self.augment:
            change_intensities(torch.from_numpy(image), random)
            mirrored = draw_mirroring(len(patch), random, self.configuration.mirrored)
            image, label = image[mirrored], label[mirrored]
        return image, label

    def _case(self, name: str) -> StoredCase:
        if name not in self._open:
            self._open[name] = self.store.open(name)
        return self._open[name]


def _target_table(labels: Labels) -> Tensor:
    """Return (1, values) or (R, values): the target of each label value, 0 to the highest, and of any other (last).

    A table is looked up many times faster than `Labels.to_regions` compares.
    """
    values = np.array(labels.values)
    table = np.full((len(labels.foreground) if labels.has_regions else 1, values[-1] + 2), UNDECLARED, dtype=np.int16)
    table[:, values] = labels.to_regions(values) if labels.has_regions else labels.to_index(values)
    if labels.ignore is not None:
        table[:, labels.ignore] = IGNORED
    return torch.from_numpy(table)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: sums over several are rounded differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


def to_device(batch: dict[str, Any], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return data, channels last, and target on `device`; targets as the int64 that cross-entropy wants."""
    data, target = torch.from_numpy(batch["data"]).to(device), torch.from_numpy(batch["target"]).to(device)
    return data.contiguous(memory_format=memory_format_for(data.ndim - 2)), target.long()
