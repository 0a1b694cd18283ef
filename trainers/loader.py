"""Batches of patches, prepared in worker processes, each determined by its number alone.

Batch n is drawn from generators seeded with (seed, n). It is therefore the same for any number of workers, and a
resumed run sees exactly the batches it would have seen without the interruption.
"""

import os
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from batchgenerators.dataloading.data_loader import SlimDataLoaderBase
from torch import Tensor

from autocrossdim.preprocessing.soft_labels import CERTAIN
from autocrossdim.preprocessing.store import StoredCase
from autocrossdim.records.labels import Labels
from autocrossdim.records.plan import Configuration
from autocrossdim.system.device import CPU, memory_format_for, send
from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import die_with_parent
from trainers.patches import PatchMaker, Region
from trainers.settings import Settings
from trainers.warp import draw_warp, source_shape

# Cases that stay open in each worker. An open case takes 0.2 to 0.6 MB (measured) and up to 0.1 MB per class; opening
# one takes about 2 ms.
OPEN_CASES = 100


class Cases(Protocol):
    """Where cases are opened: a store, or one with soft labels."""

    def open(self, name: str) -> StoredCase:
        """Return a case."""
        ...


@dataclass(frozen=True)
class Regions:
    """What was read for the patches of a batch that are made on the device of training.

    Attributes:
        regions: One region for each patch.
        names: Cases that they are from.
    """

    regions: list[Region]
    names: list[str]


@dataclass(frozen=True)
class Placed:
    """A batch on a device.

    Attributes:
        tensors: Data and target; of unlabelled scans, the patches before and after their intensities were changed.
        names: Cases that the patches are from.
    """

    tensors: tuple[Tensor, Tensor]
    names: list[str]


@dataclass(frozen=True)
class Batch:
    """Patches and what the network should answer.

    Attributes:
        data: Image patches, shape (B, C, *patch), float32; those of a cascade end with the previous stage's masks. A
            tensor if the patches were made on a GPU.
        target: Indices (B, *patch) of classes or sets of classes, or regions (B, R, *patch), int16; -1 marks voxels to
            ignore. With teachers, probabilities (B, K, *patch), float32.
        names: Cases that the patches are from.
        clean: Image patches before their intensities were changed; None unless the cases are unlabelled.
    """

    data: np.ndarray | Tensor
    target: np.ndarray
    names: list[str]
    clean: np.ndarray | Tensor | None = None

    def to(self, device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Return data (channels last) and target (int64, as cross-entropy needs it, or float32) on a device.

        Of unlabelled scans, return the patches before and after their intensities were changed (channels last).
        """
        if self.clean is not None:
            return _patches(self.clean, device), _patches(self.data, device)
        target = send(torch.from_numpy(self.target), device)
        return _patches(self.data, device), target if target.is_floating_point() else target.long()


def _patches(data: np.ndarray | Tensor, device: torch.device | str) -> Tensor:
    return send(torch.as_tensor(data), device).contiguous(memory_format=memory_format_for(data.ndim - 2))


def _stacked(patches: Sequence[Tensor]) -> np.ndarray | Tensor:
    """Return patches as a batch.

    On a CPU it is an array: a tensor cannot be opened any more once the worker that sent it has ended.
    """
    batch = torch.stack(list(patches))
    return batch.numpy() if batch.device.type == "cpu" else batch


class PatchLoader(SlimDataLoaderBase):  # type: ignore[misc]
    """Draws batches from a store.

    Args:
        store: Preprocessed cases.
        names: Cases to draw from; each is drawn once before any is drawn again.
        configuration: Patch and batch size.
        labels: Labels that turn values into targets.
        class_sets: Sets of classes that targets may name, see `trainers.partial`. Without them, background of cases in
            which not every label was annotated is ignored.
        settings: Seed, share of foreground patches, and augmentation.
        first: Number of the first batch.
        workers: Number of worker processes that share the batches.
        share: Numbers of the patches of each batch that this process draws, of several that train together.
        unlabelled: Whether the cases have no labels; their patches are then also given with unchanged intensities.
    """

    def __init__(
        self,
        store: Cases,
        names: Sequence[str],
        *,
        configuration: Configuration,
        labels: Labels,
        class_sets: Sequence[Sequence[int]] = (),
        settings: Settings,
        first: int = 0,
        workers: int = 1,
        share: slice = slice(None),
        unlabelled: bool = False,
    ) -> None:
        super().__init__(None, configuration.batch_size, workers)
        self.store = store
        self.names = names
        self.configuration = configuration
        self.make_patch = PatchMaker(
            configuration=configuration,
            labels=labels,
            class_sets=class_sets,
            settings=settings,
            unlabelled=unlabelled,
        )
        self.settings = settings
        self.next_batch = first
        # At least one patch, so that small batches have a label to learn from (nnU-Net), unless none is wanted.
        least = 1 if settings.foreground_share else 0
        self.foreground = max(least, round(configuration.batch_size * settings.foreground_share))
        self.share = share
        self.unlabelled = unlabelled
        self._cases: dict[str, StoredCase] = {}
        self._parent = os.getpid()

    def set_thread_id(self, thread_id: int) -> None:
        """Prepare a worker process: it takes every n-th batch, uses one thread and ends with its parent."""
        super().set_thread_id(thread_id)
        self.next_batch += thread_id
        torch.set_num_threads(1)
        # A terminal sends Ctrl-C to every process; the parent handles it. (Windows cannot block it beforehand.)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        die_with_parent(self._parent)

    def generate_train_batch(self) -> Batch | Regions | Exception:
        """Return the next batch, or the error that prevented it: an exception raised here would be lost."""
        try:
            return (self.regions if self.settings.augment_on_gpu else self.batch)(self.next_batch)
        except UserError as error:
            return error
        except Exception:
            return RuntimeError(f"A training patch could not be prepared:\n{traceback.format_exc()}")
        finally:
            self.next_batch += self.number_of_threads_in_multithreaded

    def batch(self, number: int) -> Batch:
        """Return batch `number`, or this process's share of it."""
        return self.batch_of(self.regions(number), CPU)

    def regions(self, number: int) -> Regions:
        """Return what is read for batch `number`, or for this process's share of it."""
        chosen = list(enumerate(self._names(number)))[self.share]
        regions = []
        for i, name in chosen:
            # A patch depends on its own number only: another process may draw the rest of the batch.
            random = np.random.default_rng((self.settings.seed, number, 2 + i))
            regions.append(self._region(name, i >= self.batch_size - self.foreground, random))
        return Regions(regions, [name for _, name in chosen])

    def place(self, drawn: Batch | Regions, device: torch.device) -> Placed:
        """Return what was drawn on a device; of regions, the patches are made there."""
        batch = self.batch_of(drawn, device) if isinstance(drawn, Regions) else drawn
        return Placed(batch.to(device), batch.names)

    def batch_of(self, drawn: Regions, device: torch.device) -> Batch:
        """Return the batch of patches of these regions, which are made on a device."""
        with _one_thread() if device.type == "cpu" else nullcontext():
            patches = [self.make_patch(region, device) for region in drawn.regions]
        return Batch(
            _stacked([patch.image for patch in patches]),
            np.stack([patch.target for patch in patches]),
            drawn.names,
            _stacked([patch.clean for patch in patches if patch.clean is not None]) if self.unlabelled else None,
        )

    def _names(self, number: int) -> list[str]:
        """Return the cases of a batch: all cases in random order, then all in another order, and so on.

        With independent draws, 1/e of the cases would be unseen after as many patches as there are cases.
        """
        count = len(self.names)
        draws = range(number * self.batch_size, (number + 1) * self.batch_size)
        rounds = range(draws[0] // count, draws[-1] // count + 1)
        order = {n: np.random.default_rng((self.settings.seed, n, 1)).permutation(count) for n in rounds}
        return [self.names[order[draw // count][draw % count]] for draw in draws]

    def _region(self, name: str, on_class: bool, random: np.random.Generator) -> Region:
        """Read what is needed for a patch around a random centre."""
        case = self._case(name)
        patch, strength = self.configuration.patch_size, self.make_patch.strength
        warp = None
        if strength is not None:
            warp = draw_warp(patch, random, strength, mirrored=self.configuration.mirrored)
        image, label, soft = self._cut(case, source_shape(patch, warp), on_class, random)
        return Region(
            image, label, soft, case.annotated_labels, case.previous_stage is not None, warp=warp, random=random
        )

    def _cut(
        self, case: StoredCase, source: tuple[int, ...], on_class: bool, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Read a box around a random centre; in 2D, neighbouring slices become channels.

        Args:
            case: The case.
            source: Size of the box in voxels, (Z, Y, X) or (Y, X): that of the patch, or more if it will be warped.
            on_class: Whether the centre is a voxel of a class.
            random: Source of randomness.

        Returns:
            image: (C, *source), float32.
            label: (*source); for a cascade (2, *source), with the segmentation by the previous stage.
            soft label: The teachers' probabilities (F, *source), float32; None without teachers.
        """
        dims, slices = self.configuration.dims, self.configuration.slices
        # A warped patch is cut from a larger box around the same centre.
        centre = _centre(case, on_class, self.configuration.patch_shape, random)
        size = (slices, *source) if dims == 2 else source
        box = [[c - n // 2, c - n // 2 + n] for c, n in zip(centre, size, strict=True)]
        image = crop_and_pad_nd(case.image, box, 0)
        label = crop_and_pad_nd(case.label, box, 0)
        soft = None if case.soft_label is None else crop_and_pad_nd(case.soft_label, box, 0)
        if case.previous_stage is not None:  # moves along with the label
            label = np.stack([label, crop_and_pad_nd(case.previous_stage, box, 0)])
        if dims == 2:  # label and soft label are those of the middle slice
            image, label = image.reshape(-1, *image.shape[2:]), label[..., slices // 2, :, :]
            soft = None if soft is None else soft[:, slices // 2]
        soft = None if soft is None else soft.astype(np.float32) / CERTAIN
        return np.ascontiguousarray(image, dtype=np.float32), label, soft

    def _case(self, name: str) -> StoredCase:
        """Return an open case; the one that has not been used for the longest time is closed if there are too many."""
        case = self._cases.pop(name, None) or self.store.open(name)
        self._cases[name] = case
        if len(self._cases) > OPEN_CASES:
            del self._cases[next(iter(self._cases))]
        return case


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: the rounding of sums depends on the number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _centre(case: StoredCase, on_class: bool, patch: tuple[int, ...], random: np.random.Generator) -> tuple[int, ...]:
    """Draw the centre of a patch: on a voxel of a random class that is present, or anywhere that was annotated.

    The patch stays inside the image along axes where it fits, and is centred on the image along the others.
    """
    shape = case.label.shape
    if on_class and case.voxels:
        positions = case.voxels[sorted(case.voxels)[random.integers(len(case.voxels))]]
        wanted = positions[random.integers(len(positions))]
    elif case.annotated_voxels is not None:  # elsewhere, a patch may have nothing to learn from (nnU-Net's rule)
        wanted = case.annotated_voxels[random.integers(len(case.annotated_voxels))]
    else:
        wanted = random.integers(shape)
        if case.annotated_slices:
            wanted[0] = case.annotated_slices[random.integers(len(case.annotated_slices))]
    centre = []
    for n, p, c in zip(shape, patch, wanted, strict=True):
        low, high = p // 2, n - p + p // 2
        centre.append(int(np.clip(c, low, high)) if high >= low else n // 2)
    return tuple(centre)
