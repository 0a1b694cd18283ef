"""The contract of planners and trainers, which are found by name and may come from other packages.

A package offers them through the entry points `autocrossdim.planners` and `autocrossdim.trainers`; each names an object
with the methods below. A configuration of a plan names the trainer that trains it (`Configuration.trainer`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from autocrossdim.data.dataset import Dataset
from autocrossdim.data.splits import Split
from autocrossdim.preprocessing.soft_labels import SoftLabels
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.plan import Configuration, Plan
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system import registry
from autocrossdim.system.errors import UserError


@runtime_checkable
class Planner(Protocol):
    """Turns a fingerprint into a plan."""

    def check_options(self, options: PlanOptions) -> None:
        """Raise a UserError for a choice that no dataset can be planned with, such as an unknown encoder.

        Called before any case is read.
        """
        ...

    def plan(self, dataset: Dataset, fingerprint: Fingerprint, options: PlanOptions) -> Plan:
        """Return the plan.

        Args:
            dataset: The raw dataset.
            fingerprint: What was measured on its training cases.
            options: What the user chose instead of the planner.

        Raises:
            UserError: The request cannot be met, for example because nothing fits the memory.
        """
        ...


@dataclass(frozen=True)
class StepCost:
    """Time and memory of a training step.

    Attributes:
        seconds: Time of one step whose batch is on the device already.
        computed_bytes: Memory that the planner computes for it.
        measured_bytes: Peak memory; None where torch does not measure it, as on a CPU.
    """

    seconds: float
    computed_bytes: int
    measured_bytes: int | None


@runtime_checkable
class MeasuresSteps(Protocol):
    """What a planner may offer besides planning, for `autocrossdim doctor --device`."""

    def measure_step(
        self,
        plan: Plan,
        configuration: Configuration,
        device: str,
        *,
        mixed: bool = True,
        channels_last: bool = True,
        compiling: float = 0,
    ) -> StepCost:
        """Run a few training steps of a configuration on random data.

        Args:
            plan: The plan.
            configuration: Configuration of the plan, possibly with another patch or batch size.
            device: Device, as for `--device`.
            mixed: Compute in the 16 bits in which the device trains, instead of 32.
            channels_last: Keep features in the channels-last memory format.
            compiling: Seconds that `torch.compile` may take; 0 does not use it.
        """
        ...


@dataclass(frozen=True)
class Unlabelled:
    """Scans without labels that a fold may learn from.

    Attributes:
        store: The preprocessed scans; their stored labels are empty and mean nothing.
        names: Those that share no patient with a validation case of the fold.
    """

    store: Store
    names: tuple[str, ...]


@dataclass(frozen=True)
class FoldTask:
    """One fold to train.

    Attributes:
        plan: Plan of the dataset.
        configuration: Configuration of the plan to train.
        store: Preprocessed cases of that configuration.
        groups: Group (patient) of each case that shares one with others.
        fold: Number of the fold, or "all".
        split: Names of its training and validation cases.
        folder: Directory for checkpoints, history and validation results.
        weights: Starting weights: `imagenet`, `random`, a timm name, a file, a trained model, or `previous`: those of
            this fold, which has been trained on other cases.
        device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.
        devices: Number of devices that train the fold together.
        settings: Training settings that differ from their defaults.
        restart: Discard existing checkpoints and start over.
        turn: Position of the fold among those that are left to train, from 1, and their number; 0 if it is trained.
        unlabelled: Scans without labels to learn from; None unless the setting `unlabelled` asks for them.
        soft_labels: What teachers say about the training cases and unlabelled scans; None unless they are distilled.
        prepare: Computes what the fold learns from, such as soft labels. A trainer calls it when nothing forbids the
            training and something is left to train, before it reads any case. None if there is nothing to compute.
    """

    plan: Plan
    configuration: Configuration
    store: Store
    groups: Mapping[str, str]
    fold: int | str
    split: Split
    folder: FoldFolder
    weights: str = "imagenet"
    device: str = "auto"
    devices: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    restart: bool = False
    turn: tuple[int, int] = (1, 1)
    unlabelled: Unlabelled | None = None
    soft_labels: SoftLabels | None = None
    prepare: Callable[[], None] | None = None


@runtime_checkable
class Trainer(Protocol):
    """Trains folds and segments their validation cases."""

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise a UserError for a setting that does not exist or has an impossible value.

        Called before any fold is trained or any job is submitted.
        """
        ...

    def train_fold(self, task: FoldTask) -> None:
        """Train one fold, or resume it; return at once if it is complete.

        Writes `checkpoint_latest` (`autocrossdim.records.checkpoint.Checkpoint`) and, unless there are no validation
        cases, `validation/` with a segmentation per case and `summary.json`.

        Raises:
            UserError: The weights are unavailable, or existing checkpoints belong to another plan.
            Interrupted: A request to stop arrived; a checkpoint was written first.
        """
        ...


@runtime_checkable
class KnowsTrained(Protocol):
    """What a trainer may offer besides training, so that only the folds that are left are announced."""

    def is_trained(self, task: FoldTask) -> bool:
        """Return whether nothing of a fold is left to train; its validation may still be missing.

        Raises:
            UserError: As `Trainer.train_fold`.
        """
        ...


def find_planner(name: str) -> Planner:
    """Return the installed planner of that name.

    Raises:
        UserError: No such planner is installed, or it is no `Planner`.
    """
    planner: Planner = _implementing(Planner, registry.find("planners", name), "planner", name)
    return planner


def find_trainer(name: str) -> Trainer:
    """Return the installed trainer of that name.

    Raises:
        UserError: No such trainer is installed, or it is no `Trainer`.
    """
    trainer: Trainer = _implementing(Trainer, registry.find("trainers", name), "trainer", name)
    return trainer


def _implementing(protocol: type, found: Any, kind: str, name: str) -> Any:
    """Return what an entry point names if it has the methods of a protocol.

    Raises:
        UserError: It has not, or it is a class instead of an instance.
    """
    if isinstance(found, type):
        raise UserError(
            f"The {kind} '{name}' is the class {found.__module__}.{found.__name__}. Its entry point must name an "
            "instance of it."
        )
    if not isinstance(found, protocol):
        methods = [method for method in vars(protocol) if not method.startswith("_")]
        missing = [method for method in methods if not hasattr(found, method)]
        raise UserError(
            f"The {kind} '{name}' (a {type(found).__module__}.{type(found).__name__}) has no method "
            f"{' or '.join(missing)}. See docs/how-to/plugins.md for what a {kind} is."
        )
    return found
