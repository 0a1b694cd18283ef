"""What a run may be resumed from. `test_trainer.py` shows that a resumed run is bitwise the uninterrupted one."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from autocrossdim.system.errors import UserError
from tests.trainers.conftest import checkpoint_of
from trainers.resume import existing_checkpoint, is_finished, require_same_run, settings_not_applied, state_of
from trainers.run import Run
from trainers.slices import run_on_slices

MakeRun = Callable[..., Run]


def test_a_complete_fold_is_finished_and_an_interrupted_one_is_not(make_run: MakeRun) -> None:
    run = make_run()
    for complete in (True, False):
        checkpoint = checkpoint_of(run, complete=complete)
        require_same_run(run, checkpoint)
        assert is_finished(run, checkpoint) is complete


@pytest.mark.parametrize("complete", [True, False])
def test_other_settings_are_refused_with_both_values_and_the_remedies(make_run: MakeRun, complete: bool) -> None:
    checkpoint = checkpoint_of(make_run(), complete=complete)
    with pytest.raises(UserError) as caught:
        require_same_run(make_run(learning_rate=0.5, augmentation="none"), checkpoint)
    message = str(caught.value)
    assert 'with other settings (augmentation: "standard" -> "none", learning_rate: 0.001 -> 0.5)' in message
    assert 'Use the former settings (--set augmentation="standard" --set learning_rate=0.001)' in message
    assert message.endswith("or start over with --restart.")


def test_a_setting_of_an_earlier_version_is_named(make_run: MakeRun) -> None:
    checkpoint = checkpoint_of(make_run())
    earlier = replace(checkpoint, settings=checkpoint.settings | {"affine": 0.2})
    with pytest.raises(UserError, match="There is no setting 'affine' any more.*Train again with --restart"):
        require_same_run(make_run(), earlier)


def test_settings_of_a_cascade_matter_to_cascades_alone(make_run: MakeRun) -> None:
    checkpoint = checkpoint_of(make_run())
    run = make_run(stage_morphology=0.4, stage_component=0.2)
    require_same_run(run, checkpoint)
    lowres = run.configuration.model_copy(update={"name": "dx_lowres"})
    configuration = run.configuration.model_copy(update={"previous_stage": "dx_lowres"})
    plan = run.task.plan.model_copy(update={"configurations": {"dx_lowres": lowres, configuration.name: configuration}})
    cascade = Run.of(replace(run.task, plan=plan, configuration=configuration))
    with pytest.raises(UserError, match=r"stage_morphology: 0\.2 -> 0\.4"):
        require_same_run(cascade, replace(checkpoint, plan=plan))


def test_settings_left_out_that_were_given_before_are_refused(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"learning_rate: 0\.5 -> 0\.001"):
        require_same_run(make_run(), checkpoint_of(make_run(learning_rate=0.5)))


def test_the_learning_rate_of_the_configuration_may_be_spelled_out(make_run: MakeRun) -> None:
    require_same_run(make_run(learning_rate=1e-3), checkpoint_of(make_run()))


def test_settings_without_influence_on_the_result_may_change(make_run: MakeRun) -> None:
    checkpoint = checkpoint_of(make_run())
    run = make_run(workers=0, compile=True, monitor="tensorboard")
    require_same_run(run, checkpoint)
    assert is_finished(run, checkpoint)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        ({"epochs": 10}, {"epochs": 20}),
        ({"max_seconds": 60}, {"max_seconds": 90}),
        ({"max_seconds": 60}, {}),
    ],
)
def test_a_complete_fold_can_be_extended_but_not_shortened(
    make_run: MakeRun, before: dict[str, Any], now: dict[str, Any]
) -> None:
    longer, shorter = make_run(**now), make_run(**before)
    checkpoint = checkpoint_of(shorter)
    require_same_run(longer, checkpoint)
    assert not is_finished(longer, checkpoint)
    with pytest.raises(UserError, match=r"trained with other settings \((epochs: 20 -> 10|max_seconds: .* -> 60\.0)\)"):
        require_same_run(shorter, checkpoint_of(longer))


def test_the_schedule_of_an_interrupted_fold_may_change(make_run: MakeRun) -> None:
    checkpoint = checkpoint_of(make_run(epochs=10, max_seconds=60), complete=False)
    require_same_run(make_run(epochs=5, max_seconds=30, patience=0, cooldown=2), checkpoint)


def test_an_extended_run_has_all_of_its_schedule_open(make_run: MakeRun) -> None:
    checkpoint = checkpoint_of(make_run(), plateau_score=0.8, plateau_epoch=1, shortened_step=50)
    state = state_of(checkpoint)
    assert (state.complete, state.shortened_step, state.plateau_epoch, state.plateau_score) == (False, None, 3, 0.8)
    assert checkpoint.complete, "the checkpoint itself is left alone"


def test_a_run_is_resumed_with_the_weights_it_started_from(make_run: MakeRun) -> None:
    checkpoint = checkpoint_of(make_run(weights="random"))
    require_same_run(replace(make_run(weights="random"), start="checkpoint of the 2D counterpart"), checkpoint)
    with pytest.raises(UserError, match=r"started with --weights random, not imagenet\. Resume with --weights random"):
        require_same_run(make_run(weights="imagenet"), checkpoint)


def test_a_fold_that_was_continued_is_trained_as_it_was_first_requested(make_run: MakeRun) -> None:
    first = {"asked": "random"}
    second = {"asked": "previous", "started_from": first}
    checkpoint = checkpoint_of(make_run(weights="random", epochs=3, augmentation="strong"))
    run = make_run(weights="random", epochs=9, augmentation="standard")
    for provenance in (second, {"asked": "previous", "started_from": second}):
        continued = replace(checkpoint, provenance=provenance)
        require_same_run(run, continued)
        assert is_finished(run, continued)
        assert settings_not_applied(run, continued) == ["augmentation", "epochs"]
        with pytest.raises(UserError, match="started with --weights previous, not imagenet"):
            require_same_run(make_run(weights="imagenet"), continued)
    interrupted = replace(checkpoint, provenance=second, run=replace(checkpoint.run, complete=False))
    with pytest.raises(UserError, match="started with --weights previous, not random"):
        require_same_run(run, interrupted)


def test_a_model_of_the_hub_without_a_revision_means_the_one_that_the_run_started_from(make_run: MakeRun) -> None:
    checkpoint = checkpoint_of(make_run(weights="hf://clinic/heart@abc"))
    for weights in ("hf://clinic/heart", "hf://clinic/heart@abc"):
        require_same_run(make_run(weights=weights), checkpoint)
    for weights in ("hf://clinic/hear", "hf://clinic/heart@def"):
        with pytest.raises(UserError, match=r"started with --weights hf://clinic/heart@abc, not "):
            require_same_run(make_run(weights=weights), checkpoint)


def test_another_split_or_plan_is_refused(make_run: MakeRun) -> None:
    run = make_run()
    checkpoint = checkpoint_of(run)
    with pytest.raises(UserError, match="trained on other cases"):
        require_same_run(run, replace(checkpoint, split={"train": ["b"], "val": ["a"]}))
    plan = run.task.plan.model_copy(update={"channel_names": ("other",)})
    with pytest.raises(UserError, match=r"trained under another plan \(different: channels\)"):
        require_same_run(run, replace(checkpoint, plan=plan))


def test_settings_of_another_version_are_refused(make_run: MakeRun) -> None:
    run = make_run()
    with pytest.raises(UserError, match=r"another version of the trainer \(Unknown setting 'momentum'.*--restart"):
        require_same_run(run, replace(checkpoint_of(run), settings={"momentum": 0.9}))


def test_the_2d_counterpart_is_compared_in_the_terms_of_the_fold(make_run: MakeRun) -> None:
    run = run_on_slices(make_run(epochs=10))
    checkpoint = checkpoint_of(run, complete=False)
    require_same_run(run, checkpoint)
    with pytest.raises(UserError, match=r"gradient_clip: 12\.0 -> 1\.0"):
        require_same_run(run_on_slices(make_run(epochs=10, gradient_clip=1)), checkpoint)


def test_a_run_that_was_not_started_has_no_checkpoint(make_run: MakeRun) -> None:
    run = make_run()
    assert existing_checkpoint(run) is None
    checkpoint_of(run).write(run.folder.latest)
    found = existing_checkpoint(run)
    assert found is not None
    assert found.run == checkpoint_of(run).run
