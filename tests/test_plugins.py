"""Planners and trainers of third-party packages: the examples of docs/how-to/plugins.md, installed and used."""

import importlib
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

import autocrossdim
from autocrossdim.commands.plugins import Planner, Trainer, find_planner, find_trainer
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.records.workspace import Workspace
from autocrossdim.report.commands import planning_command
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json
from planners.auto import auto

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "how-to" / "plugins.md"


def examples(language: str) -> list[str]:
    """Return the page's blocks of code in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


DERIVED, FROM_SCRATCH = examples("python")
(PYPROJECT,) = examples("toml")


def install(folder: Path, code: str, pyproject: str) -> Path:
    """Do what `pip install` does with a package of one module, without a network and without building a wheel."""
    project = tomllib.loads(pyproject)
    (module,) = project["tool"]["setuptools"]["py-modules"]
    name, version = project["project"]["name"].replace("-", "_"), project["project"]["version"]
    metadata = folder / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (folder / f"{module}.py").write_text(code, encoding="utf-8")
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    groups = project["project"]["entry-points"].items()
    sections = [[f"[{group}]", *(f"{key} = {value}" for key, value in points.items())] for group, points in groups]
    (metadata / "entry_points.txt").write_text("\n".join(line for section in sections for line in section) + "\n")
    return folder


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Install a package for this process: `installed(code, pyproject)`."""

    def install_here(code: str, pyproject: str) -> Path:
        folder = install(tmp_path / "site-packages", code, pyproject)
        monkeypatch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        return folder

    yield install_here
    for name in [name for name in sys.modules if name in ("my_plugins", "half_done")]:
        del sys.modules[name]


def run(site: Path, *words: object) -> str:
    """Run the command line in a process that finds the package, and return what it printed."""
    result = subprocess.run(
        [sys.executable, "-m", "autocrossdim", *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(map(str, (site, ROOT))),
            "OMP_NUM_THREADS": "1",
            "PYTHONIOENCODING": "utf-8",
        },
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr


@pytest.mark.slow
def test_the_example_plans_trains_and_predicts(tmp_path: Path, make_dataset: Callable[..., Path]) -> None:
    site = install(tmp_path / "site-packages", DERIVED, PYPROJECT)
    dataset, work = make_dataset(shape=(4, 24, 24), spacing=(6, 1, 1)), tmp_path / "work"
    encoder = ("--encoder", "test_efficientnet", "--no-trial", "--memory", 1)
    run(site, "plan_and_preprocess", dataset, "--work", work, "--planner", "focal", *encoder, "--processes", 1)
    workspace = Workspace.of(dataset.name, work)
    chosen = Plan.read(workspace.plan).configuration()
    assert (chosen.name, chosen.trainer, chosen.learning_rate) == ("omnia", "focal", 0.01)

    short = ("--epochs", 1, "--set", "steps_per_epoch=2", "--set", "workers=0", "--set", "validation_batches=1")
    run(site, "train", dataset, "--work", work, "--fold", 0, "--weights", "random", *short)
    fold = workspace.fold("omnia", 0)
    checkpoint = Checkpoint.read(fold.latest)
    assert checkpoint.complete
    assert checkpoint.resume["optimizer"]["param_groups"][0]["nesterov"]
    assert read_json(fold.validation / "summary.json")["n_cases"] == len(checkpoint.split["val"])

    # Prediction needs neither the planner nor the trainer, so this process does without the package.
    image = dataset / "imagesTr" / "a_0000.nii.gz"
    assert [path.name for path in autocrossdim.predict(dataset, image, tmp_path / "out", work=work)] == ["a.nii.gz"]


def test_a_trainer_from_scratch_trains_what_was_planned_for_it(
    installed: Callable[..., Path], tmp_path: Path, make_dataset: Callable[..., Path]
) -> None:
    installed(FROM_SCRATCH, re.sub(r'\[project.entry-points."autocrossdim.planners"\]\n.*\n', "", PYPROJECT))
    dataset, work = make_dataset(shape=(4, 24, 24), spacing=(6, 1, 1)), tmp_path / "work"
    plan = autocrossdim.plan_and_preprocess(
        dataset, work=work, trainer="focal", encoder="test_efficientnet", memory=1, trial=False, processes=1
    )
    assert {each.trainer for each in plan.configurations.values()} == {"focal"}
    assert "--trainer focal" in planning_command(plan)

    with pytest.raises(UserError, match="Unknown setting 'epochs'"):
        autocrossdim.train(dataset, work=work, fold=0, epochs=3)
    autocrossdim.train(dataset, work=work, fold=0, set={"steps": 2})
    fold = Workspace.of(dataset.name, work).fold("omnia", 0)
    assert Checkpoint.read(fold.latest).settings == {"steps": 2}
    assert (fold.validation / "summary.json").exists()


@pytest.mark.parametrize("name", ["auto", "omnia", "dx", "ds", "unet"])
def test_our_planners_are_found_and_keep_the_contract(name: str) -> None:
    assert isinstance(find_planner(name), Planner)


def test_our_trainer_is_found_and_keeps_the_contract() -> None:
    assert isinstance(find_trainer("default"), Trainer)


def test_a_name_that_is_not_installed_lists_those_that_are() -> None:
    with pytest.raises(UserError, match=r"'mine'.*auto, ds, dx, omnia, unet"):
        find_planner("mine")
    with pytest.raises(UserError, match=r"'mine'.*default"):
        find_trainer("mine")
    with pytest.raises(UserError, match=r"'mine'.*default"):
        auto.check_options(PlanOptions(trainer="mine"))


HALF_DONE = """
[project]
name = "half-done"
version = "1.0"
[project.entry-points."autocrossdim.planners"]
a_class = "half_done:Half"
half = "half_done:half"
[tool.setuptools]
py-modules = ["half_done"]
"""


def test_a_plugin_without_the_methods_is_named(installed: Callable[..., Path]) -> None:
    installed("class Half:\n    def plan(self): ...\nhalf = Half()", HALF_DONE)
    with pytest.raises(UserError, match=r"planner 'half' \(a half_done.Half\) has no method check_options\."):
        find_planner("half")
    with pytest.raises(UserError, match=r"planner 'a_class' is the class half_done.Half"):
        find_planner("a_class")


def test_options_are_checked_before_any_case_is_read(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("cases are read")

    monkeypatch.setattr("autocrossdim.preprocessing.fingerprint.extract", unexpected)
    with pytest.raises(UserError, match="resnet181"):
        autocrossdim.plan_and_preprocess(make_dataset(), work=tmp_path / "work", encoder="resnet181")
    assert not (tmp_path / "work").exists()
