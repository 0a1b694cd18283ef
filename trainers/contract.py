"""The trainer behind the contract of `autocrossdim.commands.plugins`."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from autocrossdim.commands.plugins import FoldTask
from autocrossdim.system.errors import UserError
from trainers.settings import Settings
from trainers.trainer import Trainer


class DefaultTrainer:
    """Trains Omnia-Net, DX-Net and DS-Net."""

    def check_settings(self, settings: Mapping[str, Any]) -> None:
        """Raise a UserError for a setting that does not exist or has an impossible value."""
        try:
            Settings.model_validate(dict(settings))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            raise UserError(f"Training setting '{name}' = {first['input']}: {first['msg']}.") from error

    def train_fold(self, task: FoldTask) -> None:
        """Train one fold, or resume it; return at once if it is complete."""
        settings = {"learning_rate": task.configuration.learning_rate, **task.settings}
        trainer = Trainer.create(
            task.plan, task.configuration, task.store, task.groups, task.weights, task.device, settings, task.devices
        )
        trainer.train(task.fold, task.split, task.folder, task.restart)


default = DefaultTrainer()
