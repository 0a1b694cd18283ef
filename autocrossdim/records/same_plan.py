"""The condition under which checkpoints may be used together."""

from pathlib import Path

from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan
from autocrossdim.system.errors import UserError


class SamePlan:
    """Checks that checkpoints can be used together: their training is complete, and their plans agree.

    All of them must have the same labels, channels, normalisation and axis order, and the folds of a configuration
    the same network and data; a cascade must have been planned with its previous stage. What another configuration of
    their plans looks like does not matter.

    Example:
        >>> together = SamePlan()
        >>> for path in paths:
        ...     together.add(path, Checkpoint.read(path))
    """

    def __init__(self) -> None:
        self._first: dict[str, tuple[Path, Plan]] = {}  # the first checkpoint of each configuration

    def add(self, path: Path, checkpoint: Checkpoint) -> None:
        """Compare a checkpoint with those added before.

        Args:
            path: File of the checkpoint, for messages.
            checkpoint: Its content.

        Raises:
            UserError: Its training is incomplete, or its plan differs. The message names both files and what differs.
        """
        if not checkpoint.complete:
            epoch = checkpoint.run.epoch
            raise UserError(f"{path}: training stopped after epoch {epoch}. Resume it with `autocrossdim train`.")
        name = checkpoint.configuration
        if self._first:
            users = [each for key, each in self._first.items() if each[1].configuration(key).previous_stage == name]
            shared = [name] if name in self._first or users else []
            other, plan = self._first.get(name) or next(iter([*users, *self._first.values()]))
            if differences := plan.differences(checkpoint.plan, shared):
                raise UserError(
                    f"{path}: trained under another plan than {other} (different: {', '.join(differences)}). Train one "
                    "of them again with --restart, or select folds and configurations with --fold and --config."
                )
        self._first.setdefault(name, (path, checkpoint.plan))
