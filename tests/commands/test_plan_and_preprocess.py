import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import autocrossdim
from autocrossdim.records.plan import Plan
from autocrossdim.system.errors import UserError

SMALL = ("--encoder", "test_efficientnet", "--patch-size", "8,8,8", "--batch-size", "2", "--no-trial")

SBATCH = """#!/bin/sh
cp "$1" {script}
echo Submitted batch job 7
"""


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The script that an `sbatch` that runs nothing was given."""
    pytest.importorskip("submitit")
    sbatch, script = tmp_path / "bin" / "sbatch", tmp_path / "script.sh"
    sbatch.parent.mkdir()
    sbatch.write_text(SBATCH.format(script=script), encoding="utf-8")
    sbatch.chmod(0o755)
    sbatch.with_name("srun").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(sbatch.parent), prepend=":")
    return script


def test_a_job_plans_and_preprocesses_with_the_same_options(
    script: Path,
    make_dataset: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    from submitit.core.utils import DelayedSubmission

    raw, work = make_dataset(), tmp_path / "work"
    monkeypatch.chdir(tmp_path)
    words = ("plan_and_preprocess", raw.name, "--work", "work", "--planner", "dx", "--processes", "1", *SMALL)
    submitted = command(*words, "--slurm", "time=10,partition=cpu,cpus-per-task=8")
    assert submitted.returncode == 0, submitted.stderr
    assert "plan_and_preprocess: job 7" in submitted.stderr
    assert submitted.stdout == "", "the next command would not work yet"
    folder = work / raw.name
    assert [file.name for file in folder.iterdir()] == ["slurm"]
    header = script.read_text(encoding="utf-8")
    for option in ("--time=10", "--partition=cpu", "--cpus-per-task=8", "--requeue", "--dependency=singleton"):
        assert f"#SBATCH {option}\n" in header

    (pickled,) = (folder / "slurm").glob("*_submitted.pkl")
    job = DelayedSubmission.load(pickled).function
    monkeypatch.chdir("/")  # a node starts elsewhere
    run = command(*job.words[3:])
    assert run.returncode == 0, run.stderr
    plan = Plan.read(folder / "plan.json")
    assert plan.configuration().patch_size == (8, 8, 8)
    assert plan.configuration().batch_size == 2
    assert plan.overrides["planner"] == "dx"
    assert sorted(file.stem for file in (folder / "preprocessed" / "dx").glob("*.json")) == ["a", "b", "c", "d", "e"]


def test_what_cannot_be_planned_is_not_submitted(
    script: Path, make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    raw, work = make_dataset(), tmp_path / "work"
    for message, options in {
        "a requeued job would start over": {"overwrite": True},
        "--memory": {"memory": -1},
        "resnet181": {"encoder": "resnet181"},
        "time=... is required": {"slurm": "partition=cpu"},
    }.items():
        with pytest.raises(UserError, match=message):
            autocrossdim.plan_and_preprocess(raw, work=work, **{"slurm": "time=10", **options})
    with pytest.raises(UserError, match="no such dataset"):
        autocrossdim.plan_and_preprocess(tmp_path / "nowhere", work=work, slurm="time=10")
    assert not script.exists()
    assert not work.exists()
