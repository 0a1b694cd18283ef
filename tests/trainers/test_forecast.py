from collections.abc import Callable
from dataclasses import replace

import pytest

from autocrossdim.commands.plugins import Unlabelled
from autocrossdim.records.run_state import RunState
from autocrossdim.system.files import write_text
from tests.trainers.conftest import checkpoint_of
from trainers.forecast import Left, forecast, outline, seconds_before
from trainers.run import Run
from trainers.schedule import seconds_left, shorten
from trainers.slices import run_on_slices, run_on_volumes
from trainers.teacher import DURATION, work_done
from trainers.trainer import DefaultTrainer

MakeRun = Callable[..., Run]


def in_turn(run: Run, position: int, folds: int) -> Run:
    return replace(run, task=replace(run.task, turn=(position, folds)))


def test_the_time_of_a_network_is_that_of_its_steps(make_run: MakeRun) -> None:
    settings = make_run(epochs=10, steps_per_epoch=5).settings
    assert seconds_left(RunState(step=10, seconds=99), settings, seconds_per_step=2) == 80


def test_a_time_limit_and_a_shortened_schedule_end_it_earlier(make_run: MakeRun) -> None:
    settings = make_run(epochs=10, steps_per_epoch=5, max_seconds=60, cooldown=2).settings
    state = RunState(step=10, seconds=20)
    assert seconds_left(state, settings, seconds_per_step=2) == 40
    shorten(state, settings)
    assert seconds_left(state, settings, seconds_per_step=2) == 20


def test_folds_that_follow_take_as_long_as_this_one(make_run: MakeRun) -> None:
    run = in_turn(make_run(dims=2, epochs=10, steps_per_epoch=5), 2, 5)
    left = forecast(run, RunState(step=10, seconds=20), seconds_per_step=2)
    assert left == Left(fold=80, all=80 + 3 * 100, done=pytest.approx(0.2))
    assert left.sentence(5) == "80 s left in this fold, 6 min in all 5 folds"
    assert left.sentence(1) == "80 s left"


def test_steps_with_unlabelled_scans_take_longer(make_run: MakeRun) -> None:
    run = make_run(dims=2, epochs=10, steps_per_epoch=4)
    scans = Unlabelled(run.task.store, ("scan",))
    run = in_turn(replace(run, task=replace(run.task, unlabelled=scans)), 1, 2)
    first = forecast(run, RunState(step=4, seconds=4), seconds_per_step=1)
    assert first.fold == 6 + 30 * DURATION  # a quarter of the steps come without them
    assert first.all == first.fold + 4 + 6 + 30 * DURATION
    assert forecast(run, RunState(step=20, taught_steps=10), seconds_per_step=1).fold == 20 * DURATION
    assert forecast(run, RunState(step=20, taught_steps=5, untaught=True), seconds_per_step=1).fold == 20
    state = RunState(step=20, taught_steps=10)
    assert work_done(state) == 10 + 10 * DURATION


def test_a_fold_of_dx_includes_both_networks(make_run: MakeRun) -> None:
    run = make_run(epochs=10, steps_per_epoch=5)
    on_slices = forecast(run_on_slices(run), RunState(step=50, seconds=25), seconds_per_step=0.5)
    # 25 of 50 s are over; nothing was measured when planning, so the 2D network is taken for a fifth of 250 s.
    assert on_slices.fold == pytest.approx(25 + 200)
    assert on_slices.done == pytest.approx(0.1)
    write_text(run.folder.slices.history, '{"epoch": 1, "seconds": 30.0}\n{"epoch": 2, "seconds": 20.0}\n')
    assert seconds_before(run_on_slices(run)) == 0
    volumes = run_on_volumes(run)
    on_volumes = forecast(
        volumes, RunState(step=25, seconds=75), seconds_per_step=3, seconds_before=seconds_before(volumes)
    )
    assert on_volumes == Left(fold=75, all=75, done=pytest.approx(125 / 200))


def test_what_planning_measured_replaces_the_usual_share(make_run: MakeRun) -> None:
    run = make_run(epochs=10, steps_per_epoch=5)
    plan, configuration = run.task.plan, run.configuration
    cost = configuration.cost.model_copy(update={"seconds_per_epoch": 100.0})  # of 50 steps
    measured = configuration.model_copy(update={"cost": cost})
    plan = plan.model_copy(update={"configurations": {measured.name: measured}})
    twin = run_on_slices(replace(run, task=replace(run.task, plan=plan, configuration=measured)))
    assert forecast(twin, RunState(step=100, seconds=50), seconds_per_step=0.5).fold == pytest.approx(10 * 10)


def test_the_outline_says_what_will_happen(make_run: MakeRun) -> None:
    text = outline(in_turn(make_run(epochs=10, max_seconds=7200), 1, 5))
    assert text.startswith("dx: 5 folds, one after another. First a 2D network (20 epochs of 50 steps), then the 3D ")
    assert "(10 epochs of 50 steps)" in text
    assert "at most 2 h 0 min per fold" in text
    assert "models/dx. Ctrl-C stops the training and says how to resume it." in text.replace("\\", "/")
    text = outline(make_run(dims=2, epochs=1))
    assert text.startswith("omnia fold 0. A 2D network (1 epoch of 50 steps).")


def test_the_outline_of_an_interrupted_fold_says_what_is_left(make_run: MakeRun) -> None:
    run = make_run(dims=2, epochs=10)
    checkpoint_of(run, epoch=4, complete=False).write(run.folder.latest)
    assert "A 2D network (6 of 10 epochs of 50 steps)." in outline(run)
    assert "A 2D network (0 of 3 epochs of 50 steps)." in outline(make_run(dims=2, epochs=3))
    again = replace(run, task=replace(run.task, restart=True))
    assert "A 2D network (10 epochs of 50 steps)." in outline(again)


def test_the_outline_leaves_out_a_trained_2d_network(make_run: MakeRun) -> None:
    run = make_run(epochs=10)
    slices = run_on_slices(run)
    checkpoint_of(slices, epoch=5, complete=False).write(slices.folder.latest)
    assert "First a 2D network (15 of 20 epochs of 50 steps), then the 3D" in outline(run)
    checkpoint_of(slices, epoch=20).write(slices.folder.latest)
    assert "The 3D network (10 epochs of 50 steps), which starts from the trained 2D network." in outline(run)
    checkpoint_of(run, epoch=3, complete=False).write(run.folder.latest)
    assert "The 3D network (7 of 10 epochs of 50 steps), which" in outline(run)


def test_a_fold_is_trained_if_nothing_is_left_of_it(make_run: MakeRun) -> None:
    run, trainer = make_run(epochs=10), DefaultTrainer()
    assert not trainer.is_trained(run.task)
    checkpoint_of(run, epoch=10).write(run.folder.latest)
    assert trainer.is_trained(run.task)
    assert not trainer.is_trained(replace(run.task, restart=True))
    assert not trainer.is_trained(replace(run.task, settings={"epochs": 20}))
