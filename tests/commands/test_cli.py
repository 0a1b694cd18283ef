import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import autocrossdim
from autocrossdim.commands import COMMANDS
from autocrossdim.data.images import read_label
from autocrossdim.data.phantoms import ANISOTROPIC_SPACING, chambers, write_dataset
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.workspace import Workspace

SMALL = ["--memory", "2", "--no-trial", "--encoder", "test_efficientnet"]
QUICK = ["--weights", "random", "--epochs", "1", "--set", "steps_per_epoch=2", "--set", "validation_batches=1"]


Command = Callable[..., subprocess.CompletedProcess[str]]
Succeed = Callable[..., str]


def process(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "autocrossdim", *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8", **environment},
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory, write_nodules: Callable[[Path], Path]) -> Path:
    return write_nodules(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def thick_slices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "Dataset902_Chambers"
    labels = {"background": 0, "chamber": 1, "wall": 2}
    write_dataset(folder, lambda random: chambers(random, (6, 64, 64)), labels, ANISOTROPIC_SPACING, training=4)
    return folder


@pytest.fixture(scope="module")
def planned(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("planned")
    autocrossdim.plan_and_preprocess(
        volumes, work=work, encoder="test_efficientnet", patch_size=(16, 16, 16), batch_size=2, trial=False
    )
    return work


@pytest.fixture
def work(planned: Path, tmp_path: Path) -> list[object]:
    """Options that name a work folder of its own, in which `volumes` is planned for small patches."""
    shutil.copytree(planned, tmp_path, dirs_exist_ok=True)
    return ["--work", tmp_path]


def test_help_is_quick_and_does_not_import_torch() -> None:
    code = (
        "import sys, typer.testing; from autocrossdim.cli import app; "
        "result = typer.testing.CliRunner().invoke(app, ['--help']); assert 'plan_and_preprocess' in result.output; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_shell_completes_commands(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_AUTOCROSSDIM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "autocrossdim pl")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert command().stdout.split() == ["plan", "plan_and_preprocess"]


def test_the_version_is_printed(command: Command) -> None:
    assert command("--version").stdout == f"autocrossdim {autocrossdim.__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name: str, command: Command) -> None:
    short = command(name, "-h")
    assert short.returncode == 0, short.stderr
    assert f"Usage: autocrossdim {name}" in short.stdout
    assert short.stdout == command(name, "--help").stdout


def test_the_verbose_option_shows_what_a_bug_report_needs(planned: Path, volumes: Path, command: Command) -> None:
    words = ["report", volumes, "--work", planned, "-o", planned]
    usual, verbose, quiet = (command(*words, *more) for more in ([], ["-v"], ["-q"]))
    assert verbose.returncode == 2
    assert f"autocrossdim {autocrossdim.__version__}, torch " in verbose.stderr
    assert f"Dataset: {volumes.resolve()}; results: {(planned / volumes.name).resolve()}." in verbose.stderr
    assert "Traceback" in verbose.stderr
    assert verbose.stderr.splitlines()[-1] == usual.stderr.splitlines()[-1]
    for result in (usual, quiet):
        assert not any(word in result.stderr for word in ("torch", "Dataset: ", "Traceback"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["volumes", "thick_slices"])
def test_the_whole_job(name: str, request: pytest.FixtureRequest, tmp_path: Path, succeed: Succeed) -> None:
    raw: Path = request.getfixturevalue(name)
    before = {file: file.stat().st_mtime_ns for file in raw.rglob("*")}
    work = ["--work", tmp_path]
    expected = {"volumes": "dx", "thick_slices": "omnia"}[name]

    # The encoder planned by default and a trial of a training step once, and a small one.
    options = ["--memory", "2"] if name == "volumes" else [*SMALL, "--batch-size", "2"]
    said = succeed("plan_and_preprocess", raw, *work, *options)
    assert f"Decision: {expected}" in said
    plan = json.loads((tmp_path / raw.name / "plan.json").read_text(encoding="utf-8"))
    assert plan["decision"]["configuration"] == expected

    succeed("train", raw, *work, *QUICK, "--fold", "0", "--fold", "1")
    model = tmp_path / raw.name / "models" / expected
    for fold in (0, 1):
        files = {file.name for file in (model / f"fold_{fold}").iterdir()}
        assert files >= {
            "checkpoint_latest",
            "checkpoint_best",
            "history.jsonl",
            "progress.png",
            "validation",
        }
    assert "already trained" in succeed("train", raw, *work, *QUICK, "--fold", "0")

    succeed("predict", raw, *work, "-i", raw / "imagesTs", "-o", tmp_path / "out", "--probabilities")
    for reference in sorted((raw / "labelsTs").iterdir()):
        found, geometry = read_label(tmp_path / "out" / reference.name)
        _, expected_geometry = read_label(reference)
        assert geometry == expected_geometry
        assert set(np.unique(found)) <= {0, 1, 2}

    said = succeed("evaluate", tmp_path / "out", raw / "labelsTs", "--dataset", raw)
    assert "Dice" in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text(encoding="utf-8"))
    assert len(summary["metric_per_case"]) == 2
    assert {file: file.stat().st_mtime_ns for file in raw.rglob("*")} == before


@pytest.mark.slow
def test_a_killed_training_with_unlabelled_scans_ends_with_the_same_weights(
    volumes: Path, tmp_path: Path, succeed: Succeed
) -> None:
    raw, killed, undisturbed = tmp_path / volumes.name, tmp_path / "killed", tmp_path / "undisturbed"
    shutil.copytree(volumes, raw)
    shutil.copytree(raw / "imagesTs", raw / "imagesUn")
    succeed("plan_and_preprocess", raw, "--work", killed, *SMALL, "--patch-size", "16,16,16", "--batch-size", "2")
    shutil.copytree(killed, undisturbed)
    train = ["train", raw, "--fold", "0", "--weights", "random", "--epochs", "6", "--device", "cpu"]
    for setting in ("unlabelled=1", "patience=0", "steps_per_epoch=2", "validation_batches=1", "workers=0"):
        train += ["--set", setting]
    assert "also learns from 2 unlabelled scans" in succeed(*train, "--work", undisturbed)
    command = [sys.executable, "-m", "autocrossdim", *map(str, train), "--work", str(killed)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stderr is not None
        assert any("dx fold 0: epoch 3 of 6" in line for line in process.stderr)
        process.kill()
    assert "resuming after step" in succeed(*train, "--work", killed)

    expected, found = (Workspace.of(raw.name, work).fold("dx", 0) for work in (undisturbed, killed))
    one, other = Checkpoint.read(expected.latest).network, Checkpoint.read(found.latest).network
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    succeed("predict", raw, "--work", killed, "-i", raw / "imagesUn", "-o", tmp_path / "out")
    assert {file.name for file in (tmp_path / "out").glob("*.nii.gz")} == {"case_05.nii.gz", "case_06.nii.gz"}


@pytest.mark.slow
def test_mistakes_end_in_one_clear_line_and_exit_code_2(
    volumes: Path, work: list[object], tmp_path: Path, command: Command
) -> None:
    predict = ["predict", volumes, *work, "-i", volumes / "imagesTs", "-o", tmp_path / "out"]
    for words, message in [
        (["plan_and_preprocess", tmp_path / "nowhere", *work], "nowhere: no such"),
        (["train", volumes, *work, *QUICK, "--fold", "7"], "--fold 7"),
        (["train", volumes, *work, *QUICK, "--config", "omni"], "no configuration 'omni'"),
        (["train", volumes, *work, *QUICK, "--set", "speed=9"], "speed"),
        (["train", volumes, *work, "--max-time", "soon", "--weights", "random"], "--max-time soon"),
        (["train", volumes, "--work", tmp_path / "other", *QUICK], "plan_and_preprocess"),
        (predict, "no trained fold"),
        ([*predict, "--fold", "3"], "fold_3 is not trained"),
        (["evaluate", tmp_path / "none", volumes / "labelsTr", "--dataset", volumes], "none"),
    ]:
        result = command(*words)
        assert result.returncode == 2, (words, result.stderr)
        assert message in result.stderr, (words, result.stderr)
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_option_is_an_error(volumes: Path, command: Command) -> None:
    for words, named in [
        (("train", volumes, "--epoch", "3"), "--epoch"),
        (("trian", volumes), "Did you mean 'train'? See `autocrossdim --help`."),
        (("train",), "DATASET'. See `autocrossdim train --help`."),
        (("train", volumes, "-c", "dx"), "No such option: -c. Use --config instead of -c. See"),
        (("train", volumes, "-num_gpus", "2"), "Use --devices instead of -num_gpus. See"),
        (("train", volumes, "-custom", "x"), "No such option: -c. See"),
        (("train", volumes, "-tr", "focal"), "The trainer is chosen when planning: plan_and_preprocess --trainer. See"),
        (("plan_and_preprocess", volumes, "--show"), "`autocrossdim plan DATASET` shows the decision"),
        (
            ("predict", "-d", "4", "-f", "0"),
            "-d. Give the dataset right after `autocrossdim predict`, without an option.",
        ),
        (("ensemble", "a", "b", "-d", "4"), "No such option: -d. Use --dataset instead of -d. See"),
        (("plan", volumes, "-f", "0"), "No such option: -f. See"),
    ]:
        result = command(*words)
        assert result.returncode == 2
        assert named in result.stderr
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr


@pytest.mark.parametrize("words", [("-q", "plan"), ("plan", "-q"), ("plan", "--quiet")])
def test_output_is_limited_before_or_after_the_name_of_the_command(
    words: tuple[str, ...], volumes: Path, tmp_path: Path, command: Command
) -> None:
    result = command(*words, volumes, "--work", tmp_path, *SMALL)
    assert result.returncode == 0, result.stderr
    assert "Decision: dx" in result.stdout
    assert "Decision: dx" not in result.stderr


def test_every_fault_is_printed_at_once_and_nothing_is_written(volumes: Path, tmp_path: Path, command: Command) -> None:
    raw = tmp_path / volumes.name
    for file in volumes.rglob("*.*"):
        target = raw / file.relative_to(volumes)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    (raw / "labelsTr" / "case_01.nii.gz").unlink()
    truncated = raw / "imagesTr" / "case_02_0000.nii.gz"
    truncated.write_bytes(truncated.read_bytes()[:200])
    result = command("plan_and_preprocess", raw, "--work", tmp_path / "work")
    assert result.returncode == 2
    assert "case_01" in result.stderr
    assert "case_02" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "work").exists()


def test_a_plan_is_shown_and_printed_as_json_without_preprocessing(
    volumes: Path, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    result = command("plan", volumes, "--work", tmp_path, *SMALL, "--batch-size", "3")
    assert result.returncode == 0, result.stderr
    for expected in ("5 3D cases", "organ (5), nodule (5)", "Decision: dx", "dx (chosen)", "omnia", "batch_size = 3"):
        assert expected in result.stdout
    assert "░" in result.stdout
    assert " 0 billion" not in result.stdout
    assert not (tmp_path / volumes.name / "preprocessed").exists()
    printed = command("plan", volumes, "--work", tmp_path, *SMALL, "--json")
    assert json.loads(printed.stdout)["decision"]["configuration"] == "dx"


@pytest.mark.slow
def test_dsnet_is_planned_and_trained_when_asked_for(volumes: Path, tmp_path: Path, succeed: Succeed) -> None:
    work = ["--work", tmp_path]
    succeed("plan_and_preprocess", volumes, *work, "--planner", "ds", *SMALL, "--patch-size", "16,16,16")
    succeed("train", volumes, *work, *QUICK, "--fold", "0")
    assert (tmp_path / volumes.name / "models" / "ds" / "fold_0" / "validation" / "summary.json").exists()


@pytest.mark.slow
def test_predict_never_replaces_an_image(
    volumes: Path, work: list[object], tmp_path: Path, succeed: Succeed, command: Command
) -> None:
    succeed("train", volumes, *work, *QUICK, "--fold", "0")
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "b.nii.gz").write_bytes((volumes / "imagesTs" / "case_05_0000.nii.gz").read_bytes())
    before = (folder / "b.nii.gz").read_bytes()
    result = command("predict", volumes, *work, "-i", folder, "-o", folder, "--overwrite")
    assert result.returncode == 2
    assert "this is the directory of the images" in result.stderr
    assert (folder / "b.nii.gz").read_bytes() == before
    # Probabilities asked for later are made, though the segmentations are there.
    succeed("predict", volumes, *work, "-i", folder, "-o", tmp_path / "out")
    succeed("predict", volumes, *work, "-i", folder, "-o", tmp_path / "out", "--probabilities")
    assert (tmp_path / "out" / "b.npz").exists()


def test_a_dataset_json_changed_after_planning_is_noticed(
    volumes: Path, tmp_path: Path, succeed: Succeed, command: Command
) -> None:
    raw = tmp_path / volumes.name
    shutil.copytree(volumes, raw)
    succeed("plan", raw, "--work", tmp_path / "work", *SMALL)
    content = json.loads((raw / "dataset.json").read_text(encoding="utf-8"))
    (raw / "dataset.json").write_text(json.dumps({**content, "labels": {"background": 0, "organ": 1}}))
    result = command("plan", raw, "--work", tmp_path / "work", *SMALL)
    assert result.returncode == 2
    assert "--overwrite" in result.stderr


@pytest.mark.slow
def test_a_plan_can_be_shown_where_there_is_only_ascii(volumes: Path, work: list[object]) -> None:
    result = process("plan", volumes, *work, *SMALL, "--patch-size", "16,16,16", PYTHONIOENCODING="ascii")
    assert result.returncode == 0, result.stderr
    assert "dx (chosen)" in result.stdout
