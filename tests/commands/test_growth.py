"""A planned dataset to which cases are added, or from which cases are removed."""

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocrossdim
from autocrossdim.commands.arguments import Fold
from autocrossdim.commands.growth import (
    OutgrownFold,
    explain_outgrown,
    incompatible_keys,
    outgrown_folds,
    training_words,
)
from autocrossdim.commands.plan_and_preprocess import present
from autocrossdim.commands.project import Project
from autocrossdim.data.images import read_label, write_label
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.plan import Plan
from autocrossdim.records.run_state import RunState
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.errors import UserError

CASES = ["a", "b", "c", "d", "e"]
OPTIONS = {"encoder": "test_efficientnet", "memory": 1.0, "trial": False, "processes": 1}


class Growing:
    """A dataset of CT images that was planned and preprocessed once."""

    def __init__(self, write: Callable[..., Path], work: Path) -> None:
        self._write, self._work = write, work
        self.has(CASES)
        self.plan()
        self.space = Workspace.of(self.raw.name, work)

    def has(self, cases: list[str], **more: Any) -> None:
        """Write the dataset anew with these cases; those that were there before have the same content."""
        names = CASES + sorted(set(cases) - set(CASES))  # the content of a case depends on its position
        self.raw = self._write(cases=names, shape=(16, 20, 18), channel_names={"0": "CT"}, **more)
        for name in set(names) - set(cases):
            (self.raw / "imagesTr" / f"{name}_0000.nii.gz").unlink()
            (self.raw / "labelsTr" / f"{name}.nii.gz").unlink()

    def plan(self, **options: Any) -> Plan:
        return autocrossdim.plan_and_preprocess(self.raw, work=self._work, **{**OPTIONS, **options})

    @property
    def validated(self) -> list[list[str]]:
        return [split["val"] for split in json.loads(self.space.splits.read_text(encoding="utf-8"))]


def outgrown(fold: Fold, *seen: str, configuration: str = "dx", weights: str | None = None) -> OutgrownFold:
    return OutgrownFold(configuration, fold, "trained on 4 of the 5 current training cases", seen, weights)


@pytest.fixture
def growing(make_dataset: Callable[..., Path], tmp_path: Path) -> Growing:
    return Growing(make_dataset, tmp_path / "work")


def test_new_cases_are_picked_up_by_the_same_command(growing: Growing, capfd: pytest.CaptureFixture[str]) -> None:
    before, folds = growing.space.plan.read_text(encoding="utf-8"), growing.validated
    plan = Plan.read(growing.space.plan)
    store = Store(growing.space.preprocessed(plan.decision.configuration))
    stored = {file: file.stat().st_mtime_ns for file in store.root.glob("*.b2nd")}
    growing.has([*CASES, "f", "g"], numTraining=5)
    autocrossdim.report(growing.raw, work=growing.space.root.parent)
    assert "f, g are new and not in any fold. Run `autocrossdim plan_and_preprocess`" in capfd.readouterr().err
    growing.plan()
    said = capfd.readouterr().err
    assert "2 cases were added (f, g) since the dataset was planned." in said
    assert "The plan is kept" in said
    assert "CT intensities are still normalised with the statistics of the originally planned cases." in said
    assert "numTraining is 5, but there are 7 training cases" in said
    assert growing.space.plan.read_text(encoding="utf-8") == before
    assert store.names() == [*CASES, "f", "g"]
    assert {file: file.stat().st_mtime_ns for file in stored} == stored
    assert Fingerprint.read(growing.space.fingerprint).names == [*CASES, "f", "g"]
    assert json.loads(growing.space.dataset_json.read_text(encoding="utf-8"))["numTraining"] == 7
    assert [val[: len(old)] for val, old in zip(growing.validated, folds, strict=True)] == folds
    assert sorted(name for val in growing.validated for name in val) == [*CASES, "f", "g"]
    # Once more: nothing is left to do, and the plan is still kept.
    splits = growing.space.splits.read_text(encoding="utf-8")
    growing.plan()
    assert (growing.space.plan.read_text(encoding="utf-8"), growing.space.splits.read_text(encoding="utf-8")) == (
        before,
        splits,
    )


def test_the_notes_of_a_kept_plan_count_the_annotated_slices_of_all_cases(growing: Growing) -> None:
    growing.has(CASES, unannotated_slices="empty")
    before = growing.plan(overwrite=True)
    counted = [note for note in before.notes if "slices are annotated (unannotated_slices)" in note]
    growing.has([*CASES, "f"], unannotated_slices="empty", numTraining=6)
    plan = growing.plan()
    total = 16 * len(CASES)
    (stale,) = counted
    assert f"of {total} slices" in stale
    assert plan.notes == tuple(
        note if note != stale else note.replace(note.partition(" slices")[0], f"{total + 16} of {total + 16}")
        for note in before.notes
    )
    assert plan.model_copy(update={"notes": before.notes}) == before
    assert before.differences(plan, list(before.configurations)) == []
    assert Plan.read(growing.space.plan) == plan


def test_the_next_command_suits_the_folds(growing: Growing, monkeypatch: pytest.MonkeyPatch) -> None:
    def said() -> str:
        return next(present(Plan.read(growing.space.plan), dataset=str(growing.raw), work=growing.space.root.parent))

    assert said().endswith(str(growing.space.root.parent))
    name = Plan.read(growing.space.plan).decision.configuration
    folds = [outgrown(0, configuration=name), outgrown(1, configuration=name), outgrown(2, configuration="other")]
    monkeypatch.setattr("autocrossdim.commands.growth.outgrown_folds", lambda _: folds)
    assert said().endswith(" --weights previous")
    folds[1] = outgrown(1, "f", configuration=name)
    assert said().endswith(" --fold 1 --restart")
    folds[:2] = []
    assert said().endswith(" --config other --weights previous")  # the only one that was trained
    growing.space.model(name).mkdir(parents=True)
    assert said().endswith(str(growing.space.root.parent))
    monkeypatch.undo()
    monkeypatch.setattr(Project, "splits", [])  # of a single case
    assert said().endswith(" --fold all")


def test_the_next_commands_repeat_the_settings_of_the_folds() -> None:
    few, many = ("--epochs", "4"), ("--epochs", "8", "--set", "unlabelled=1")
    again = [replace(outgrown(fold, "f", weights="random"), settings=few) for fold in (0, 1)]
    onward = [replace(outgrown(fold), settings=settings) for fold, settings in ((2, few), (3, many), (4, many))]
    everything = replace(outgrown("all"), settings=few)
    previous = ["--weights", "previous"]
    assert training_words([*onward, everything, *again]) == [
        ["--fold", "0", "--fold", "1", "--weights", "random", *few, "--restart"],
        ["--fold", "2", *previous, *few],
        ["--fold", "3", "--fold", "4", *previous, *many],
        ["--fold", "all", *previous, *few],
    ]
    assert training_words(onward[1:]) == [[*previous, *many]]


def test_folds_trained_on_earlier_versions_are_named_after_a_correction(
    growing: Growing, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fold = OutgrownFold("dx", 0, "trained on earlier versions of a", (), None)
    monkeypatch.setattr("autocrossdim.commands.growth.outgrown_folds", lambda _: [fold])
    growing.plan()
    assert "earlier versions" not in capfd.readouterr().err
    label = growing.raw / "labelsTr" / "a.nii.gz"
    array, geometry = read_label(label)
    write_label(np.where(array == array.max(), 0, array), geometry, label)
    growing.plan()
    assert "dx fold 0 was trained on earlier versions of a." in capfd.readouterr().err


def test_a_fold_is_compared_with_the_versions_that_it_was_trained_on(growing: Growing) -> None:
    project = Project.open(growing.raw, work=growing.space.root.parent)
    name, split = project.plan.decision.configuration, project.splits[0]
    store = project.store(name, processes=1)
    latest = growing.space.fold(name, 0).latest
    known = {
        "plan": project.plan,
        "configuration": name,
        "fold": 0,
        "split": {"train": list(split.train), "val": list(split.val)},
        "network": {},
        "settings": {},
        "provenance": {},
        "run": RunState(complete=True),
    }
    sources = {case: store.source_hash(case) for case in split.train}
    Checkpoint(**known, sources=sources).write(latest)
    assert outgrown_folds(project) == []
    Checkpoint(**known, sources={**sources, split.train[0]: "another"}).write(latest)
    (fold,) = outgrown_folds(project)
    assert fold.sentence == f"{name} fold 0 was trained on earlier versions of {split.train[0]}."


def test_a_plan_with_other_options_is_not_replaced_silently(
    growing: Growing, capfd: pytest.CaptureFixture[str]
) -> None:
    growing.plan(memory=2.0)
    assert "The options differ from those of the existing plan (memory: 1.0 -> 2.0)" in capfd.readouterr().err
    growing.plan(memory=2.0)
    assert "options differ" not in capfd.readouterr().err


def test_a_removed_case_leaves_its_fold_and_every_store(growing: Growing, capfd: pytest.CaptureFixture[str]) -> None:
    plan = Plan.read(growing.space.plan)
    project = Project.open(growing.raw, work=growing.space.root.parent)
    stores = [project.store(name, processes=1) for name in plan.configurations]
    folds = growing.validated
    gone = folds[1][0]
    growing.has([*(name for name in CASES if name != gone), "f"], numTraining=5)
    growing.plan()
    assert f"1 case was added (f) and 1 case was removed ({gone})" in capfd.readouterr().err
    assert growing.validated == [*folds[:1], ["f"], *folds[2:]]
    assert [gone in store.names() for store in stores] == [False] * len(stores)
    assert not list(growing.space.root.glob(f"preprocessed/*/{gone}.*"))


@pytest.mark.parametrize("corrected", [False, True])
def test_renamed_cases_stay_in_their_folds(
    growing: Growing, corrected: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    folds = growing.validated
    new = dict(zip(CASES, ("p3", "p5", "p1", "p2", "p4"), strict=True))
    for old, name in new.items():
        (growing.raw / "imagesTr" / f"{old}_0000.nii.gz").rename(growing.raw / "imagesTr" / f"{name}_0000.nii.gz")
        (growing.raw / "labelsTr" / f"{old}.nii.gz").rename(growing.raw / "labelsTr" / f"{name}.nii.gz")
    if corrected:
        label = growing.raw / "labelsTr" / "p1.nii.gz"
        label.write_bytes(gzip.compress(gzip.decompress(label.read_bytes()), 1))
    growing.plan()
    assert growing.validated == [[new[name] for name in val] for val in folds]
    said = capfd.readouterr().err
    assert "p1, p2, p3, p4, p5 are renamed copies of c, d, a, e, b; they stay in their folds." in said


def test_a_fold_without_cases_is_an_error_and_nothing_changes(growing: Growing) -> None:
    before = growing.space.splits.read_text(encoding="utf-8"), growing.space.fingerprint.read_text(encoding="utf-8")
    growing.has(CASES[1:], numTraining=4)
    with pytest.raises(UserError, match=r"has an empty 'val'. Make new folds with --overwrite"):
        growing.plan()
    assert (
        growing.space.splits.read_text(encoding="utf-8"),
        growing.space.fingerprint.read_text(encoding="utf-8"),
    ) == before
    growing.plan(overwrite=True)
    assert sorted(name for val in growing.validated for name in val) == CASES[1:]


def test_other_labels_are_refused_with_what_overwrite_would_do(growing: Growing) -> None:
    before = growing.space.plan.read_text(encoding="utf-8")
    growing.has([*CASES, "f"], labels={"background": 0, "block": 1, "other": 2})
    with pytest.raises(UserError, match=r"labels changed since the dataset was planned\. .*--overwrite.*--restart"):
        growing.plan()
    assert growing.space.plan.read_text(encoding="utf-8") == before
    assert growing.plan(overwrite=True).labels.names == ("block", "other")


def test_other_options_plan_anew(growing: Growing, capfd: pytest.CaptureFixture[str]) -> None:
    growing.has([*CASES, "f"])
    plan = growing.plan(batch_size=3)
    assert plan.configuration().batch_size == 3
    said = capfd.readouterr().err
    assert "batch_size: default -> 3), so a new plan is created" in said
    assert "existing folds" not in said
    growing.space.model("dx").mkdir(parents=True)
    growing.plan(batch_size=4)
    assert (
        "If the new plan differs, train existing folds again with `autocrossdim train --restart`."
        in capfd.readouterr().err
    )


def test_the_folds_that_have_learned_from_a_validation_case_are_trained_from_the_start() -> None:
    folds = [outgrown(0), outgrown(2, "f"), outgrown(3), outgrown("all")]
    sentences = explain_outgrown(folds, dataset="DS", work="w")
    assert sentences[1] == (
        "dx fold 2 was trained on f, which is a validation case now, so it cannot continue from its weights."
    )
    assert sentences[-2:] == [
        "To train from the start what cannot continue, run "
        "`autocrossdim train DS --work w --config dx --fold 2 --restart`.",
        "To continue from the weights of the other folds, run "
        "`autocrossdim train DS --work w --config dx --fold 0 --fold 3 --weights previous` and "
        "`autocrossdim train DS --work w --config dx --fold all --weights previous`.",
    ]
    assert explain_outgrown([outgrown(2, "f", weights="random")], dataset="DS")[-1].endswith(
        "--fold 2 --weights random --restart`."
    )
    assert explain_outgrown([outgrown(0), outgrown(1)], dataset="DS")[-1] == (
        "To continue from the weights they have, run `autocrossdim train DS --config dx --weights previous`."
    )
    assert explain_outgrown([], dataset="DS") == []


@pytest.mark.parametrize(
    ("key", "before", "now"),
    [
        ("labels", {"background": 0, "a": 1}, {"background": 0, "b": 1}),
        ("channel_names", {"0": "T1"}, {"0": "T1", "1": "T2"}),
        ("file_ending", ".nii.gz", ".nrrd"),
        ("mirror_axes", None, ["x"]),
        ("mirror_axes", None, []),
        ("dataset", {"old": {"label": "one"}}, {"old": {"label": "other"}}),
    ],
)
def test_what_changes_more_than_the_cases_is_incompatible(key: str, before: Any, now: Any) -> None:
    assert incompatible_keys({key: before}, {key: now}, {"new"}) == [key]


@pytest.mark.parametrize(
    ("key", "before", "now"),
    [
        ("numTraining", 5, 6),
        ("description", "five cases", "six cases"),
        ("groups", {"old": "p"}, {"old": "q"}),
        ("sides", None, []),
        ("dataset", {"old": {"label": "one"}}, {"old": {"label": "one"}, "new": {"label": "two"}}),
        ("author", None, "somebody"),
        ("key_of_another_program", {"old": 1}, {"old": 2}),
    ],
)
def test_what_concerns_new_cases_or_has_no_meaning_is_compatible(key: str, before: Any, now: Any) -> None:
    assert incompatible_keys({key: before}, {key: now}, {"new"}) == []
