"""With `--json`, stdout is one JSON document: what the Python function returns."""

import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import pytest

import autocrossdim
from autocrossdim.commands import COMMANDS
from autocrossdim.data.phantoms import ANISOTROPIC_SPACING, chambers, write_dataset
from autocrossdim.system.console import show
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import write_json

LITTLE = ["--epochs", "1", "--weights", "random", "--set", "steps_per_epoch=1", "--set", "validation_batches=1"]
PLANNED = ["--memory", "2", "--no-trial", "--encoder", "test_efficientnet"]
SEPARATELY = {"study"}  # trains networks of its own; see test_study.py

pytestmark = pytest.mark.slow  # a whole run, and every command after it


class Finished(NamedTuple):
    """A dataset with everything that `run` and `predict` write."""

    raw: Path
    work: Path
    report: Path
    segmented: tuple[Path, Path]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("json")
    raw, work = folder / "Dataset902_Chambers", folder / "work"
    labels = {"background": 0, "chamber": 1, "wall": 2}
    write_dataset(raw, lambda random: chambers(random, (4, 32, 32)), labels, ANISOTROPIC_SPACING, training=4)
    cases = [f"case_{number:02d}" for number in range(4)]
    write_json(
        raw / "splits_final.json", [{"train": cases[:2], "val": cases[2:]}, {"train": cases[2:], "val": cases[:2]}]
    )
    settings = {"steps_per_epoch": 1, "validation_batches": 1}
    report = autocrossdim.run(
        raw, work=work, memory=2, trial=False, encoder="test_efficientnet", weights="random", epochs=1, set=settings
    )
    segmented = (folder / "a", folder / "b")
    for output in segmented:
        autocrossdim.predict(raw, raw / "imagesTs", output, work=work, probabilities=True)
    return Finished(raw, work, report, segmented)


def words_of(name: str, finished: Finished, folder: Path) -> list[object]:
    """Return a call of a command that has little to do."""
    raw, place = finished.raw, ["--work", finished.work]
    calls: dict[str, list[object]] = {
        "run": [raw, *place, *PLANNED, *LITTLE],
        "convert": [raw.parent / "table.csv", "-o", folder / "Dataset001_Table"],
        "verify": [raw],
        "plan": [raw, *place, *PLANNED],
        "plan_and_preprocess": [raw, *place, *PLANNED],
        "train": [raw, *place, *LITTLE],
        "predict": [raw, *place, "-i", raw / "imagesTs", "-o", finished.segmented[0]],
        "ensemble": [*finished.segmented, "-o", folder / "both", "--dataset", raw],
        "evaluate": [finished.segmented[0], raw / "labelsTs", "--dataset", raw],
        "find_best": [raw, *place],
        "distil": [raw, *place, *LITTLE, "--fold", "all"],
        "annotate_next": [raw, *place, "-i", raw / "imagesTs"],
        "report": [raw, *place, "-o", folder / "report.html"],
        "export": [raw, *place, "-o", folder / "model.acd"],
        "demo": ["--data-only", "-o", folder / "demo"],
        "doctor": [],
    }
    if name == "convert":
        rows = [
            f"case_{k},{raw}/imagesTr/case_{k:02d}_0000.nii.gz,{raw}/labelsTr/case_{k:02d}.nii.gz" for k in range(2)
        ]
        (raw.parent / "table.csv").write_text("\n".join(["case,image,label", *rows]), encoding="utf-8")
    return [name, *calls[name]]


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in SEPARATELY])
def test_a_command_prints_one_json_document(
    name: str, finished: Finished, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    result = command(*words_of(name, finished, tmp_path), "--json")
    assert result.returncode == 0, result.stderr
    printed = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    expected = {
        "run": str(finished.report),
        "predict": [str(finished.segmented[0] / f"case_0{k}.nii.gz") for k in (4, 5)],
        "ensemble": [str(tmp_path / "both" / f"case_0{k}.nii.gz") for k in (4, 5)],
        "report": str(tmp_path / "report.html"),
        "export": str(tmp_path / "model.acd"),
    }
    assert printed == expected.get(name, printed)
    assert printed, "nothing was reported"


def test_without_json_a_command_says_what_it_wrote(
    finished: Finished, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for name, said in {
        "ensemble": f"{tmp_path / 'both'}: 2 segmentations.",
        "predict": f"{finished.segmented[0]}: 2 segmentations.",
        "export": f"Next: autocrossdim predict {tmp_path / 'model.acd'} -i IMAGES -o SEGMENTED",
        "report": f"The report was written to {tmp_path / 'report.html'}.",
    }.items():
        assert said in command(*words_of(name, finished, tmp_path)).stdout


def test_what_a_library_prints_is_not_mixed_with_the_result(
    finished: Finished, command: Callable[..., subprocess.CompletedProcess[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_report(*_: object, **__: object) -> None:
        sys.stdout.write("noise of Python")
        ctypes.CDLL(None).puts(b"noise of C")
        subprocess.run(["echo", "noise of a process"], check=True)

    monkeypatch.setattr(import_module("autocrossdim.report.page"), "write_report", write_report)
    result = command("report", finished.raw, "--work", finished.work, "--json")
    assert json.loads(result.stdout) == str(finished.report)
    for source in ("Python", "C", "a process"):
        assert f"noise of {source}" in result.stderr
    # Of several processes that train together, only the first prints the result.
    monkeypatch.setenv("RANK", "1")
    assert command("report", finished.raw, "--work", finished.work, "--json").stdout == ""


def test_a_run_ends_with_results_paths_and_the_next_command(
    finished: Finished, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = import_module("autocrossdim.commands.run").present
    show(*shown(finished.report, dataset=str(finished.raw), work=finished.work))
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    models = finished.work / finished.raw.name / "models" / "omnia"
    assert any(line.startswith("omnia") and line.endswith("chosen") for line in lines)
    assert any(line.startswith("chamber") for line in lines)
    assert lines[-3:] == [
        f"Models and results: {models}",
        f"Report: {finished.report}",
        f"Next: autocrossdim predict {finished.raw} --work {finished.work} -i IMAGES -o SEGMENTED",
    ]


def test_a_wrong_value_is_reported_before_a_run_begins(finished: Finished, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--max-time soon"):
        autocrossdim.run(finished.raw, work=tmp_path / "work", max_time="soon")
    assert not (tmp_path / "work").exists()
