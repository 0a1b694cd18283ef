"""The batches of a run: training patches, unlabelled patches, and fixed validation patches."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from autocrossdim.records.run_state import RunState
from autocrossdim.system.lightning import Fabric
from autocrossdim.system.processes import default_processes, processes_here
from trainers.distilled import DistilledCases, names_to_draw
from trainers.loader import Batch, PatchLoader, Placed
from trainers.prefetch import placed
from trainers.run import Run
from trainers.workers import batches

VALIDATION_SEED_OFFSET = 1_000_003  # validation patches come from another random stream than training patches


def training_batches(run: Run, state: RunState, fabric: Fabric) -> AbstractContextManager[Iterator[Placed]]:
    """Return the training batches from the next step on, this process's share of each, on its device."""
    task, workers = run.task, number_of_workers(run)
    is_distilled = task.soft_labels is not None
    loader = PatchLoader(
        DistilledCases.of(task) if is_distilled else task.store,
        names_to_draw(task) if is_distilled else task.split.train,
        configuration=run.configuration,
        labels=task.plan.labels,
        class_sets=() if is_distilled else run.class_sets,  # soft targets need no sets of classes
        settings=run.settings,
        first=state.step * run.settings.accumulate,
        workers=max(1, workers),
        share=slice(fabric.global_rank, None, fabric.world_size),
    )
    return placed(batches(loader, workers), fabric.device, loader.place)


def unlabelled_batches(run: Run, state: RunState, fabric: Fabric) -> AbstractContextManager[Iterator[Placed]]:
    """Return the batches of unlabelled scans from the next one on, this process's share of each, on its device."""
    assert run.task.unlabelled is not None
    workers = number_of_workers(run)
    loader = PatchLoader(
        run.task.unlabelled.store,
        run.unlabelled,
        configuration=run.configuration,
        labels=run.task.plan.labels,
        settings=run.settings,
        first=state.taught_steps,
        workers=max(1, workers),
        share=slice(fabric.global_rank, None, fabric.world_size),
        unlabelled=True,
    )
    return placed(batches(loader, workers), fabric.device, loader.place)


def validation_batches(run: Run) -> list[Batch]:
    """Return a few batches of foreground patches, the same in every epoch, so that their scores can be compared."""
    if not run.task.split.val:
        return []
    changes: dict[str, Any] = {"foreground_share": 1.0, "augmentation": "none", "channel_dropout": 0.0}
    loader = PatchLoader(
        run.task.store,
        run.task.split.val,
        configuration=run.configuration,
        labels=run.task.plan.labels,
        class_sets=run.class_sets,
        settings=run.settings.model_copy(update={**changes, "seed": run.settings.seed + VALIDATION_SEED_OFFSET}),
    )
    return [loader.batch(number) for number in range(run.settings.validation_batches)]


def number_of_workers(run: Run) -> int:
    """Return the number of processes that prepare batches for this process; 0 prepares them in this one."""
    workers = run.settings.workers
    return max(1, default_processes() // processes_here(run.task.devices) - 1) if workers is None else workers
