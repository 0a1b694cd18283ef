"""The cascade from plan to export, on volumes of which a patch covers little."""

import shutil
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocrossdim
from autocrossdim.data.images import read_label
from autocrossdim.inference.predictor import Predictor
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.best import Best, plan_digest
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan
from autocrossdim.records.summary import Summary
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import write_json
from tests.conftest import write_dataset

TRAINING: dict[str, Any] = {"weights": "random", "epochs": 1, "device": "cpu"}
PLANNING: dict[str, Any] = {
    "encoder": "test_efficientnet",
    "patch_size": (8, 8, 8),
    "batch_size": 2,
    "trial": False,
    "processes": 1,
}
SETTINGS = {"steps_per_epoch": 1, "validation_batches": 1, "workers": 0, "slices_first": False, "averaging": 0}


class Cascade:
    """A dataset of two folds with a plan of three 3D configurations."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        self.raw = write_dataset(
            folder / "Dataset001_Tiny",
            cases=("a", "b", "c", "d"),
            test_cases=("t",),
            labels={"background": 0, "left": 1, "right": 2},
            shape=(16, 16, 16),
            spacing=(1, 1, 1),
            mirror_axes=[],  # eight times as fast
        )
        folds = [{"train": ["a", "b"], "val": ["c", "d"]}, {"train": ["c", "d"], "val": ["a", "b"]}]
        write_json(self.raw / "splits_final.json", folds)
        self.plan: Plan = autocrossdim.plan(self.raw, work=self.work, **PLANNING)
        self.space = Workspace.of(self.raw.name, self.work)

    def train(self, config: str, **options: Any) -> None:
        options = {**TRAINING, "set": SETTINGS, **options}
        autocrossdim.train(self.raw, work=self.work, config=config, **options)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Cascade:
    """Planned, nothing trained."""
    return Cascade(tmp_path_factory.mktemp("cascade"))


@pytest.fixture(scope="module")
def trained(planned: Cascade) -> Cascade:
    """All stages trained and compared; runs after the tests that need `planned` alone."""
    for config in planned.plan.trained_by_run:
        planned.train(config)
    autocrossdim.find_best(planned.raw, work=planned.work, device="cpu", processes=1)
    return planned


def test_a_plan_trains_the_low_resolution_before_the_cascade(planned: Cascade) -> None:
    plan = planned.plan
    assert plan.trained_by_run == ("dx", "dx_lowres", "dx_cascade")
    assert plan.with_stages(["dx_cascade"]) == ("dx_lowres", "dx_cascade")
    cascade, dx = plan.configuration("dx_cascade"), plan.configuration("dx")
    assert cascade.spacing == dx.spacing
    assert plan.network_plan(cascade).in_channels == 1 + 2  # the image, and a mask per label
    assert cascade.memory.estimated_bytes > dx.memory.estimated_bytes
    assert Plan.read(planned.space.plan) == plan
    assert "previous_stage" not in dx.model_dump()  # plans without a cascade are written as before


def test_the_cascade_names_the_command_that_trains_its_previous_stage(planned: Cascade) -> None:
    with pytest.raises(
        UserError, match=r"fold 0 of dx_lowres is not trained. Run `autocrossdim train .*dx_lowres` first"
    ):
        planned.train("dx_cascade")


def test_each_case_is_stored_with_the_segmentation_by_the_fold_that_did_not_see_it(trained: Cascade) -> None:
    store = Store(trained.space.preprocessed("dx_cascade"))
    for fold, case in ((0, "c"), (1, "a")):
        validated = trained.space.fold("dx_lowres", fold).validation / f"{case}.nii.gz"
        expected, _ = read_label(validated)
        stored = store.open(case).previous_stage
        assert stored is not None
        placement = store.record(case).placement
        assert placement.cropped_shape == placement.shape  # nothing was resampled
        np.testing.assert_array_equal(placement.restore(stored[:]), expected)
        assert Checkpoint.read(trained.space.fold("dx_lowres", fold).latest).trained_on.names.isdisjoint({case})
    assert Store(trained.space.preprocessed("dx")).open("a").previous_stage is None


def test_find_best_compares_the_cascade_and_counts_the_cost_of_both_stages(trained: Cascade) -> None:
    best = Best.read(trained.space.best)
    contenders = {frozenset(each.configurations): each for each in best.contenders}
    single = {name for names in contenders if len(names) == 1 for name in names}
    assert single == {"dx", "dx_lowres", "dx_cascade"}
    assert len(contenders) == 6
    cost = {name: each.cost.multiply_adds_per_case for name, each in trained.plan.configurations.items()}
    both = cost["dx_lowres"] + cost["dx_cascade"]
    assert contenders[frozenset({"dx_cascade"})].multiply_adds == both
    assert contenders[frozenset({"dx_cascade", "dx_lowres"})].multiply_adds == both
    steps = {names: each.steps_per_fold for names, each in contenders.items()}
    assert steps[frozenset({"dx"})] == 1
    assert steps[frozenset({"dx_cascade"})] == steps[frozenset({"dx_cascade", "dx_lowres"})] == 2
    assert plan_digest(trained.plan, ["dx_cascade"]) != plan_digest(
        trained.plan.model_copy(
            update={
                "configurations": {
                    **trained.plan.configurations,
                    "dx_lowres": trained.plan.configuration("dx_lowres").model_copy(update={"learning_rate": 1.0}),
                }
            }
        ),
        ["dx_cascade"],
    )


def test_find_best_chooses_the_cascade_where_it_is_better(trained: Cascade, tmp_path: Path) -> None:
    space = Workspace.of(trained.raw.name, tmp_path)
    shutil.copytree(trained.space.root, space.root)
    for fold, cases in ((0, "cd"), (1, "ab")):
        folder = space.fold("dx_cascade", fold)
        for case in cases:  # as if the cascade had segmented its held-out cases without an error
            shutil.copy(trained.raw / "labelsTr" / f"{case}.nii.gz", folder.validation)
        summary = Summary.read(folder.summary)
        # One result is missing, so all are evaluated anew.
        summary.model_copy(update={"metric_per_case": summary.metric_per_case[:1]}).write(folder.summary)
    best = autocrossdim.find_best(trained.raw, work=tmp_path, device="cpu", processes=1)
    dice = {each.configurations: each.dice for each in best.contenders}
    assert dice[("dx_cascade",)] == 1
    assert all(value < 0.5 for names, value in dice.items() if names != ("dx_cascade",))
    assert best.configurations == ("dx_cascade",)
    assert {key.partition("/")[0] for key in best.checkpoints} == {"dx_lowres", "dx_cascade"}
    predictor = Predictor.load(trained.raw, work=tmp_path, device="cpu")
    assert [model.configuration.name for model in predictor.models] == ["dx_cascade"]
    assert list(predictor.stages) == ["dx_lowres"]


def test_prediction_hands_the_low_resolution_on_to_the_cascade(trained: Cascade, tmp_path: Path) -> None:
    predictor = Predictor.load(trained.raw, work=trained.work, config="dx_cascade", device="cpu")
    assert list(predictor.stages) == ["dx_lowres"]
    assert predictor.members == 2  # the folds of the cascade; the previous stage is not averaged
    image = trained.raw / "imagesTs" / "t_0000.nii.gz"
    prepared = predictor.prepare(image)
    found = predictor.segment(prepared, probabilities=True)
    assert found.probabilities is not None

    ready = predictor.after_stages(prepared)
    assert ready.inputs[0].image.shape[0] == 2  # the image, and the label values of the previous stage
    assert predictor.after_stages(ready) is ready

    # The same by hand: the segmentation by the low resolution, one mask per label.
    coarse = Predictor.load(trained.raw, work=trained.work, config="dx_lowres", device="cpu")(image).label
    (case,) = prepared.inputs
    cropped = case.placement.change.apply(coarse)
    for network in predictor.models[0].networks:
        with pytest.MonkeyPatch.context() as patch:
            seen = []
            patch.setattr(network, "forward", lambda x, call=network.forward, seen=seen: (seen.append(x), call(x))[1])
            predictor.segment(prepared)
        tile = seen[0][0]
        assert tile.shape == (3, 8, 8, 8)
        for value in (1, 2):
            np.testing.assert_array_equal(tile[value], cropped[:8, :8, :8] == value)

    together = Predictor.load(trained.raw, work=trained.work, config=["dx_lowres", "dx_cascade"], device="cpu")
    assert together.stages["dx_lowres"] is together.models[0]
    # The same networks, but another result: `predict` must not skip what the other one has segmented.
    (difference,) = predictor.origin.differences(together.origin, calibration=False)
    assert "dx_lowres/fold_0 (previous stage)" in difference
    folder = Predictor.load(trained.space.model("dx_cascade"), device="cpu")
    np.testing.assert_array_equal(folder(image, probabilities=True).probabilities, found.probabilities)


def test_an_exported_cascade_holds_both_stages_and_averages_one(trained: Cascade, tmp_path: Path) -> None:
    file = autocrossdim.export(trained.raw, tmp_path / "cascade.acd", work=trained.work, config="dx_cascade")
    from_file = Predictor.load(file, device="cpu")
    from_folder = Predictor.load(trained.raw, work=trained.work, config="dx_cascade", device="cpu")
    assert [model.configuration.name for model in from_file.models] == ["dx_cascade"]
    image = trained.raw / "imagesTs" / "t_0000.nii.gz"
    np.testing.assert_array_equal(
        from_file(image, probabilities=True).probabilities, from_folder(image, probabilities=True).probabilities
    )
    with pytest.raises(UserError, match="needs the segmentation by dx_lowres"):
        Predictor(from_file.models)


def test_a_cascade_is_not_continued_after_its_previous_stage_was_trained_again(trained: Cascade) -> None:
    with pytest.raises(UserError, match="dx_lowres has not segmented the unlabelled scans"):
        trained.train("dx_cascade", set={"unlabelled": 1})
    trained.train("dx_cascade")  # is complete
    trained.train("dx_lowres", fold=0, restart=True, set={**SETTINGS, "seed": 1})
    with pytest.raises(UserError, match=r"earlier versions of c, d, .* or which dx_lowres has segmented again"):
        trained.train("dx_cascade", fold=1)


@pytest.mark.slow
def test_run_trains_each_stage_before_the_one_that_needs_it_and_compares_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, train, order = Cascade(tmp_path), autocrossdim.train, []

    def recorded(*words: Any, config: str, **options: Any) -> Any:
        order.append(config)
        return train(*words, config=config, **options)

    monkeypatch.setattr(import_module("autocrossdim.commands.train"), "train", recorded)
    page = autocrossdim.run(planned.raw, work=planned.work, set=SETTINGS, **PLANNING, **TRAINING)
    assert order == ["dx", "dx_lowres", "dx_cascade"]
    compared = {frozenset(each.configurations) for each in Best.read(planned.space.best).contenders}
    assert compared == {frozenset(names) for number in (1, 2) for names in combinations(order, number)}
    assert "dx_cascade" in page.read_text(encoding="utf-8")
