"""What one training run consists of: the fold to train, and the settings to train it with."""

from dataclasses import dataclass
from functools import cached_property

from autocrossdim.commands.plugins import FoldTask
from autocrossdim.records.plan import Configuration
from autocrossdim.records.workspace import FoldFolder
from trainers.partial import ClassSet, class_sets
from trainers.settings import Settings, read_settings


@dataclass(frozen=True)
class Run:
    """One network to train.

    Attributes:
        task: The fold to train.
        requested: Training settings of the fold.
        settings: Training settings of this network, which has a share of the time if the fold trains two networks.
        start: Weights the network starts from. They differ from `task.weights`, which the user requested, where DX-Net
            starts from its 2D counterpart that was trained from those.
    """

    task: FoldTask
    requested: Settings
    settings: Settings
    start: str

    @classmethod
    def of(cls, task: FoldTask) -> "Run":
        """Return the run that trains the network of a fold from the requested weights.

        Raises:
            UserError: A setting does not exist or is out of bounds.
        """
        settings = read_settings(task.settings)
        return cls(task, settings, settings, task.weights)

    @property
    def configuration(self) -> Configuration:
        """The configuration to train."""
        return self.task.configuration

    @property
    def folder(self) -> FoldFolder:
        """Directory of the fold."""
        return self.task.folder

    @property
    def name(self) -> str:
        """Name of the run in messages."""
        return f"{self.configuration.name} fold {self.task.fold}"

    @cached_property
    def class_sets(self) -> tuple[ClassSet, ...]:
        """Sets of classes that targets may name, because some cases were not annotated completely."""
        records = [self.task.store.record(name) for name in (*self.task.split.train, *self.task.split.val)]
        return class_sets(self.task.plan.labels, [record.annotated_labels for record in records])

    @property
    def unlabelled(self) -> tuple[str, ...]:
        """Names of the unlabelled scans that the run learns from."""
        return () if self.task.unlabelled is None else self.task.unlabelled.names

    @property
    def has_mean_teacher(self) -> bool:
        """Whether its average teaches it on unlabelled scans; a distilled network draws them like labelled cases."""
        return bool(self.unlabelled) and self.task.soft_labels is None

    @property
    def learning_rate(self) -> float:
        """Peak learning rate: that of the settings, else that of the configuration."""
        rate = self.settings.learning_rate
        return self.configuration.learning_rate if rate is None else rate
