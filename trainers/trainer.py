"""Training folds of a configuration: one process or several, then validation on whole cases."""

import multiprocessing
import os
import shutil
import signal
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.ddp import DDPStrategy
from pydantic import ValidationError

from autocrossdim.data.splits import Split
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Configuration, Plan
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system.console import is_first_process, say
from autocrossdim.system.device import choose_device, precision_for
from autocrossdim.system.errors import Interrupted, UserError
from autocrossdim.system.files import remove_leftovers
from autocrossdim.system.processes import default_processes, under_torchrun
from trainers.fit import Fit, is_finished
from trainers.history import History
from trainers.settings import Settings
from trainers.signals import REQUESTS
from trainers.slices import goes_by_slices, settings_after, twin_of, twin_settings, with_configuration
from trainers.validation import validate


@dataclass
class Trainer:
    """Trains folds of one configuration.

    Attributes:
        plan: of the dataset.
        configuration: which of its configurations.
        store: its preprocessed cases.
        groups: the patient of a case, where cases share one.
        settings: every hyper-parameter.
        weights: where the network starts from; see `trainers.start.starting_network`.
        device: `auto`, `cpu` or `cuda`.
        devices: how many of them train one network together; the plan's batch is divided among them.
        asked: the weights the user asked for, where `weights` are those that were trained from them first.
    """

    plan: Plan
    configuration: Configuration
    store: Store
    groups: Mapping[str, str]
    settings: Settings
    weights: str = "imagenet"
    device: str = "auto"
    devices: int = 1
    asked: str = ""

    defaults: ClassVar[dict[str, Any]] = {}

    @classmethod
    def create(
        cls,
        plan: Plan,
        configuration: Configuration,
        store: Store,
        groups: Mapping[str, str],
        weights: str,
        device: str,
        settings: dict[str, Any],
        devices: int = 1,
    ) -> "Trainer":
        """Return a trainer whose hyper-parameters are its defaults but for those in `settings`.

        Raises:
            UserError: a hyper-parameter that does not exist, or a value it cannot have.
        """
        try:
            checked = Settings.model_validate({**cls.defaults, **settings})
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise UserError(f"Training setting '{name}' = {first['input']}: {first['msg']}.") from error
        return cls(plan, configuration, store, groups, checked, weights, device, devices)

    @property
    def workers(self) -> int:
        """Processes that load and augment, for each process that trains."""
        if self.settings.workers is not None:
            return self.settings.workers
        return max(1, default_processes() // self.world - 1)

    def train(self, fold: int | str, split: Split, folder: FoldFolder, restart: bool = False) -> None:
        """Train and validate one fold, each from where it stopped; nothing is done twice.

        Args:
            fold: number, or "all".
            split: its training and validation cases.
            folder: where checkpoints, history and validation go.
            restart: forget what the fold had learned.

        Raises:
            UserError: weights cannot be had, a checkpoint is damaged or of another plan, or the loss is not finite.
            Interrupted: SIGTERM or SIGUSR1 came; a checkpoint was written first.
        """
        last, forget = self, (folder.root,) if restart else ()
        if goes_by_slices(self.configuration, self.settings, self.weights):
            twin = twin_of(self.configuration)
            place = folder.slices
            if restart or not folder.latest.exists():
                plan, settings = with_configuration(self.plan, twin), twin_settings(self.settings)
                first = replace(self, plan=plan, configuration=twin, settings=settings)
                first._launch(fold, split, place, (place.root, *forget) if restart else ())
                forget = ()
            own = settings_after(self.settings)
            last = replace(self, weights=str(place.latest), asked=self.weights, settings=own)
        last._launch(fold, split, folder, forget)
        if is_first_process():
            validate(folder, self.store, split, self.groups, self.device)

    def _launch(self, fold: int | str, split: Split, folder: FoldFolder, forget: tuple[Path, ...]) -> None:
        """Train one network, in this process or in as many as there are devices."""
        if self.world > self.configuration.batch_size:
            raise UserError(
                f"--devices {self.world}: a batch of {self.configuration.batch_size} patches is divided among the "
                "devices. Use fewer, or plan with a larger --batch-size."
            )
        if self.world == 1 or under_torchrun():
            fabric = self._fabric("popen")
            fabric.launch()
            fit(fabric, self, fold, split, folder, forget)
            return
        with _passing_on_signals():
            # Bound, because fabric looks into arguments and stumbles over frozen dataclasses.
            job = partial(_fit_in_process, arguments=(self, fold, split, folder, forget))
            failed = self._fabric("spawn").launch(job)
        if failed is not None:
            raise failed

    @property
    def world(self) -> int:
        """Processes that train together, a device each: torchrun says, where it has started them."""
        return int(os.environ["WORLD_SIZE"]) if under_torchrun() else self.devices

    def _fabric(self, start_method: Literal["popen", "spawn"]) -> Fabric:
        device = choose_device(self.device)
        several = self.world > 1
        ours = int(os.environ["LOCAL_WORLD_SIZE"]) if under_torchrun() else self.devices
        together = DDPStrategy(
            start_method=start_method,
            timeout=timedelta(days=1),  # the others wait while the first one preprocesses or validates
            find_unused_parameters=self.settings.frozen_epochs > 0,  # a frozen encoder has no gradients
        )
        with warnings.catch_warnings():
            # Wherever SLURM is installed, lightning recommends its own way of using it.
            warnings.filterwarnings("ignore", "The `srun` command is available")
            return Fabric(
                accelerator=device.type,
                devices=[device.index or 0] if device.type == "cuda" and not several else ours,
                num_nodes=self.world // ours,
                strategy=together if several else "auto",
                precision=precision_for(device),  # type: ignore[arg-type]
            )


def fit(
    fabric: Fabric, trainer: Trainer, fold: int | str, split: Split, folder: FoldFolder, forget: tuple[Path, ...]
) -> None:
    """Train one fold in this process, one of as many as `fabric` has launched.

    With folders to `forget`, it starts anew, and they are removed once everything that was asked for is there.
    """
    resumed = Checkpoint.read(folder.latest) if folder.latest.exists() and not forget else None
    if resumed is not None and is_finished(trainer, resumed, split, folder):
        if fabric.is_global_zero:
            say(f"{trainer.configuration.name} fold {fold}: already trained.")
            if not folder.progress.exists():  # killed between the last checkpoint and the picture
                History(folder.history, resumed.progress["epoch"]).draw(folder.progress)
        return
    run = Fit(trainer, fabric, fold, split, folder, resumed)
    fabric.barrier()  # all have read what is there
    if fabric.is_global_zero:
        # What was validated before is not this model's any more.
        for path in (folder.validation, *forget):
            shutil.rmtree(path, ignore_errors=True)
        remove_leftovers(folder.root)
    run.run()


def _fit_in_process(fabric: Fabric, arguments: tuple[Any, ...]) -> Exception | None:
    """`fit`, in a spawned process: what the user can mend is handed back, since only text would come across."""
    os.environ["RANK"] = str(fabric.global_rank)
    torch.set_num_threads(max(1, default_processes() // fabric.world_size))
    try:
        fit(fabric, *arguments)
    except (UserError, Interrupted) as error:
        return error
    return None


@contextmanager
def _passing_on_signals() -> Iterator[None]:
    """Send SIGTERM and SIGUSR1 on to the processes that train; they agree on a step and write a checkpoint."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in multiprocessing.active_children():
            if process.pid is not None:
                os.kill(process.pid, number)

    before = {number: signal.signal(number, pass_on) for number in REQUESTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class OmniaTrainer(Trainer):
    """Trains Omnia-Net on slices, at the authors' learning rate."""


class DXTrainer(Trainer):
    """Trains DX-Net on volumes, at twice that rate.

    Measured on one fold of Hippocampus, 200 steps from random weights: Dice 0.805, 0.819 and 0.810 at 1e-3, 2e-3 and
    4e-3 on the fold's validation cases, 0.794, 0.797 and 0.798 on 16 others.
    """

    defaults: ClassVar[dict[str, Any]] = {"learning_rate": 2e-3}
