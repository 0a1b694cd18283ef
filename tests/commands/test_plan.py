"""When `plan` keeps the existing plan of an unchanged dataset, and when it plans again."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocrossdim
from autocrossdim.commands.project import Project
from autocrossdim.data.images import read_label
from autocrossdim.records.plan import Plan
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json
from planners.auto import AutoPlanner

CODES = {"block": {"value": "10200004", "meaning": "Liver"}}
OPTIONS = {"encoder": "test_efficientnet", "memory": 1.0, "trial": False, "processes": 1}


def test_nothing_is_computed_again_unless_something_changed(
    make_dataset: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    raw, compute, computed = make_dataset(), AutoPlanner.plan, []

    def counted(planner: AutoPlanner, *arguments: Any) -> Any:
        computed.append(compute(planner, *arguments) if not computed else computed[0])
        return computed[0]

    def plans_again(**options: Any) -> bool:
        before = len(computed)
        autocrossdim.plan(raw, work=tmp_path / "work", **{**OPTIONS, **options})
        kept = "The plan is kept: data, options, version and device are the same." in capfd.readouterr().err
        assert kept == (len(computed) == before)
        return not kept

    monkeypatch.setattr(AutoPlanner, "plan", counted)
    file = Workspace.of(raw.name, tmp_path / "work").plan
    assert plans_again()
    written = file.read_bytes()
    assert not plans_again()
    assert file.read_bytes() == written
    description = read_json(raw / "dataset.json")
    write_json(raw / "dataset.json", {**description, "licence": "CC0", "codes": CODES})
    assert not plans_again(), "no plan depends on these keys"
    assert plans_again(memory=2.0)
    assert plans_again(memory=2.0, planner="dx")
    assert plans_again()
    assert plans_again(overwrite=True)
    with monkeypatch.context() as patch:
        patch.setattr("autocrossdim.system.device.total_memory", lambda _: 2**30)
        assert plans_again()
        patch.setattr("autocrossdim.commands.plan.version", lambda _: "0.3")
        assert plans_again()
    assert plans_again()
    with monkeypatch.context() as patch:
        patch.setattr(AutoPlanner, "__module__", "another_package")
        assert plans_again(), "the code of a plug-in may have changed"
    file.write_text("{}", encoding="utf-8")
    assert plans_again(), "a damaged plan is replaced"


def test_unlabelled_scans_change_neither_measurements_nor_plan_nor_folds(
    make_dataset: Callable[..., Path], write_image: Callable[..., Path], tmp_path: Path
) -> None:
    raw, scans = make_dataset(), tmp_path / "elsewhere"
    array = read_label(raw / "labelsTr" / "a.nii.gz")[0]
    scans.mkdir()
    write_image(scans / "scan_0000.nii.gz", 1e4 + array.astype(np.float32), (9, 1, 1))  # brighter, and thick slices

    def planned(name: str) -> list[bytes]:
        autocrossdim.plan_and_preprocess(raw, work=tmp_path / name, **OPTIONS)
        space = Workspace.of(raw.name, tmp_path / name)
        return [file.read_bytes() for file in (space.plan, space.fingerprint, space.splits)]

    without = planned("without")
    (raw / "imagesUn").symlink_to(scans)
    assert planned("with") == without
    project = Project.open(raw, work=tmp_path / "with")
    assert project.unlabelled("all") == ("scan",)
    assert "scan" not in project.store(project.plan.decision.configuration).names()


def test_without_options_those_of_the_existing_plan_apply(
    make_dataset: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    raw, work = make_dataset(), tmp_path / "work"
    first = autocrossdim.plan(raw, work=work, planner="dx", **{**OPTIONS, "patch_size": (16, 16, 16)})
    chosen = PlanOptions(encoder="test_efficientnet", memory=1, patch_size=(16, 16, 16), trial=False)
    asked: list[tuple[str, PlanOptions]] = []

    def planned(planner: AutoPlanner, dataset: object, fingerprint: object, options: PlanOptions) -> Plan:
        asked.append((planner.configuration or "auto", options))
        return first

    def plan(*words: object) -> str:
        result = command("plan", raw, "--work", work, "--processes", 1, "--no-trial", *words)
        assert result.returncode == 0, result.stderr
        return result.stderr

    monkeypatch.setattr(AutoPlanner, "plan", planned)
    said = plan()
    assert "the options of the existing plan: --encoder test_efficientnet --memory 1 --patch-size 16,16,16" in said
    assert "To plan without them, add --planner auto." in said
    assert "The plan is kept" in said
    plan("--overwrite")
    assert asked.pop() == ("dx", chosen)
    plan("--batch-size", 3)
    assert asked.pop() == ("auto", PlanOptions(trial=False, batch_size=3))
    for reset in (("--planner", "auto"), ("--encoder", "efficientnet_b0")):
        autocrossdim.plan(raw, work=work, planner="dx", **OPTIONS)
        asked.clear()
        plan(*reset)
        assert asked == [("auto", PlanOptions(trial=False))]


def test_options_of_a_plan_that_are_not_valid_are_named(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    raw, work = make_dataset(), tmp_path / "work"
    autocrossdim.plan(raw, work=work, **OPTIONS)
    file = Workspace.of(raw.name, work).plan
    write_json(file, {**read_json(file), "overrides": {"memory": "much"}})
    with pytest.raises(UserError, match="--memory"):
        autocrossdim.plan(raw, work=work, processes=1, trial=False)
