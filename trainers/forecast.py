"""What training will do and how long it will take, in words; times are measured on the steps of the run itself."""

from dataclasses import dataclass

from autocrossdim.records.history import read_history
from autocrossdim.records.plan import STEPS_PER_EPOCH
from autocrossdim.records.run_state import RunState
from autocrossdim.system.text import counted, duration
from trainers.resume import existing_checkpoint, is_trained
from trainers.run import Run
from trainers.schedule import seconds_left
from trainers.slices import SUFFIX, TIME, follows_slices, is_on_slices, run_on_slices, run_on_volumes, starts_on_slices
from trainers.teacher import work_per_step


@dataclass(frozen=True)
class Left:
    """Training time that is left. Validation is not included.

    Attributes:
        fold: Seconds until the end of the fold.
        all: Seconds until the end of all folds that the command trains.
        done: Fraction of the training time of the fold that is over, 0 to 1.
    """

    fold: float
    all: float
    done: float

    def sentence(self, folds: int) -> str:
        """Return the times in words.

        Args:
            folds: Number of folds that the command trains.
        """
        if folds == 1:
            return f"{duration(self.fold)} left"
        return f"{duration(self.fold)} left in this fold, {duration(self.all)} in all {folds} folds"

    def short(self, folds: int) -> str:
        """Return the times in as few words as a bar has room for.

        Args:
            folds: Number of folds that the command trains.
        """
        return f"{duration(self.fold)} left" + ("" if folds == 1 else f", all folds {duration(self.all)}")


def forecast(run: Run, state: RunState, *, seconds_per_step: float, seconds_before: float = 0.0) -> Left:
    """Return the training time that is left; later folds are assumed to take as long as this one.

    Args:
        run: The run.
        state: Its state.
        seconds_per_step: Training time per step without unlabelled scans, as measured.
        seconds_before: Training time of the network that the run starts from, see `seconds_before`.
    """
    position, folds = run.task.turn
    own = seconds_left(state, run.settings, seconds_per_step=seconds_per_step * _work_per_step(run, state))
    after = _seconds_on_volumes(run, state.seconds + own) if is_on_slices(run) else 0.0
    fold = seconds_before + state.seconds + own + after
    left = own + after
    return Left(left, left + (folds - position) * fold, done=1 - left / fold if fold > 0 else 0.0)


def _work_per_step(run: Run, state: RunState) -> float:
    settings = run.settings
    return work_per_step(state, settings.epochs * settings.steps_per_epoch) if run.has_mean_teacher else 1.0


def outline(run: Run) -> str:
    """Return what training the folds of a command will do, and where its results will be.

    Args:
        run: The run of the first fold that is left to train.

    Raises:
        UserError: An existing checkpoint is damaged, or belongs to another run.
    """
    folds, settings = run.task.turn[1], run.settings
    sentences = [f"{run.name}." if folds == 1 else f"{run.configuration.name}: {folds} folds, one after another."]
    if starts_on_slices(run):
        slices, volumes = run_on_slices(run), run_on_volumes(run)
        if _is_begun(volumes) or (_is_begun(slices) and is_trained(slices)):
            sentences.append(f"The 3D network ({_length(volumes)}), which starts from the trained 2D network.")
        else:
            sentences.append(
                f"First a 2D network ({_length(slices)}), then the 3D network ({_length(volumes)}), which starts from "
                "it."
            )
    else:
        sentences.append(f"A {run.configuration.dims}D network ({_length(run)}).")
    if settings.max_seconds is not None:
        limit = duration(settings.max_seconds)
        sentences.append(f"Training takes at most {limit} per fold, with fewer epochs if necessary.")
    sentences.append(
        f"The time is estimated after the first steps. Results: {run.folder.root.parent}. Ctrl-C stops the training "
        "and says how to resume it."
    )
    return " ".join(sentences)


def _is_begun(run: Run) -> bool:
    return not run.task.restart and run.folder.latest.exists()


def _length(run: Run) -> str:
    checkpoint = existing_checkpoint(run) if _is_begun(run) else None
    done = 0 if checkpoint is None else checkpoint.run.epoch
    left = f"{max(0, run.settings.epochs - done)} of " if done else ""
    return f"{left}{counted(run.settings.epochs, 'epoch')} of {counted(run.settings.steps_per_epoch, 'step')}"


def seconds_before(run: Run) -> float:
    """Return the training time of the 2D counterpart that a run starts from, from its history; 0 without one."""
    if not follows_slices(run):
        return 0.0
    return sum((epoch["seconds"] for epoch in read_history(run.folder.slices.history)), start=0.0)


def _seconds_on_volumes(run: Run, on_slices: float) -> float:
    """Return the expected training time of DX-Net.

    Planning has measured its steps where it could; otherwise the 2D counterpart takes its usual share.

    Args:
        run: The run of the 2D counterpart.
        on_slices: Training time of the 2D counterpart in seconds.
    """
    settings = run.requested
    measured = run.task.plan.configuration(run.configuration.name.removesuffix(SUFFIX)).cost.seconds_per_epoch
    if measured is None:
        expected = on_slices * (1 - TIME) / TIME
    else:
        expected = measured * settings.epochs * settings.accumulate * settings.steps_per_epoch / STEPS_PER_EPOCH
        expected *= _work_per_step(run, RunState())
    return expected if settings.max_seconds is None else min(expected, (1 - TIME) * settings.max_seconds)
