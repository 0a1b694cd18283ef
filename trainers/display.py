"""What a run shows while it trains: an estimate after the first steps, and bars on a terminal."""

from autocrossdim.records.run_state import RunState
from autocrossdim.system.console import Bars, say
from trainers.forecast import Left, forecast, seconds_before
from trainers.run import Run
from trainers.schedule import last_epoch
from trainers.teacher import work_done

WARM_UP = 2  # steps that are not measured: the first ones allocate memory and wait for the first batches
MEASURED = 10  # steps after which the time is estimated


class Display:
    """Shows a run while it trains. It only reads the state, so training is the same without it.

    Args:
        run: The run.
        state: Its state, which the training loop changes.
        shown: Bars to redraw.
    """

    def __init__(self, run: Run, state: RunState, shown: Bars) -> None:
        self._run, self._state, self._bars = run, state, shown
        self._first = state.step
        self._start = self._warm = (work_done(state), state.seconds)
        self._before = seconds_before(run)
        self._score: float | None = None

    def step(self, loss: float | None) -> None:
        """Show a step.

        Args:
            loss: The newest loss that is known; None if there is none yet in this epoch.
        """
        state, settings, folds = self._state, self._run.settings, self._run.task.turn[1]
        steps, left = state.step - self._first, self._left()
        if steps == WARM_UP:
            self._warm = (work_done(state), state.seconds)
        if steps == WARM_UP + MEASURED:
            say(
                f"{self._run.name}: about {left.sentence(folds)}, estimated from {MEASURED} steps on this machine. "
                "Validation is not included."
            )
        position = f" ({self._run.task.turn[0]}/{folds})" if folds > 1 else ""
        self._bars.update(
            "fold",
            f"{self._run.name}{position}",
            left.done,
            left.short(folds) if steps > WARM_UP else "measuring the time",
        )
        score, shown = ("-" if value is None else f"{value:.3f}" for value in (self._score, loss))
        last = last_epoch(state, settings)
        self._bars.update(
            "epoch",
            f"epoch {state.epoch + 1}" + (f"/{last}" if last else ""),
            len(state.losses) / settings.steps_per_epoch,
            f"step {len(state.losses)}/{settings.steps_per_epoch}, loss {shown}, pseudo-Dice {score}",
        )

    def epoch(self, score: float | None) -> str:
        """Note the pseudo-Dice of an epoch, and return in words how much time is left; empty if bars show it.

        Args:
            score: Mean pseudo-Dice; None if there are no validation cases.
        """
        self._score = score
        return "" if self._bars.visible else self._left().sentence(self._run.task.turn[1])

    def _left(self) -> Left:
        """Return the time that is left, from the steps after the warm-up or, before there are any, from its steps."""
        state, now = self._state, work_done(self._state)
        before, seconds = self._warm if now > self._warm[0] else self._start
        seconds_per_step = (state.seconds - seconds) / max(1, now - before)
        return forecast(self._run, state, seconds_per_step=seconds_per_step, seconds_before=self._before)
