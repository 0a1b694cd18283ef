"""What `autocrossdim doctor` says about a machine."""

import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from autocrossdim.commands import device_check
from autocrossdim.commands.device_check import _section, _speed, compiled_steps
from autocrossdim.commands.device_report import DeviceReport, Section, defaults
from autocrossdim.commands.doctor import doctor
from autocrossdim.system.device import CPU
from autocrossdim.system.errors import Interrupted, UserError


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse connections."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("socket.create_connection", refuse)


def test_a_machine_without_a_gpu_and_without_network(succeed: Callable[..., str]) -> None:
    printed = succeed("doctor")
    assert f"torch {version('torch')}" in printed
    assert re.search(r"\d+ CPU cores?, ", printed)
    assert "cannot be reached (no network). Use weights that are in the cache, `--weights FILE`" in printed


@pytest.mark.slow
def test_a_device_is_measured_from_networks_to_prediction(tmp_path: Path, command: Callable[..., Any]) -> None:
    file = tmp_path / "cpu.md"
    result = command("doctor", "--device", "cpu", "-o", file, "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    tables = {section["title"]: section["rows"] for section in report["sections"]}
    networks, memory, steps, depthwise, training, prediction = tables.values()
    assert {(row["network"], row["precision"]) for row in networks} == {
        (network, precision) for network in ("dx", "omnia") for precision in ("fp32", "bf16", "fp16")
    }
    assert [row for row in networks if row["agrees"] != "yes"] == []
    assert all(row["error of gradients"] == 0 for row in networks if row["precision"] == "fp32")
    assert all(row["computed GB"] > 0 and row["measured GB"] is None for row in memory)
    assert {(row["channels last"], row["default"]) for row in steps} == {("yes", "yes"), ("no", "no")}
    assert all(row[column] > 0 for row in depthwise for column in row if column.endswith("(ms)"))
    assert all(0 <= row["share waiting for data"] <= 1 and row["devices"] == 1 for row in training)
    assert [row["augmentation on"] for row in training] == ["workers"] * 2
    assert all(row["voxels per second"] > 0 for row in prediction)
    of_dx = [row for row in prediction if "dx" in row["network"]]
    assert [(row["network"], row["mirroring"], row["on the device"]) for row in of_dx] == [
        ("dx", "yes", "throughout"),
        ("nnU-Net's for dx", "yes", "throughout"),
        ("dx", "no", "throughout"),
        ("nnU-Net's for dx", "no", "throughout"),
        ("dx", "no", "for each batch"),
    ]
    assert report["defaults"] == [
        "Precision: every network agrees with the CPU in fp32, bf16 and fp16.",
        "Memory: not measured on this device.",
        "Speed: no defaults follow from it, because the networks are tiny on a CPU.",
    ]
    written = file.read_text(encoding="utf-8")
    assert all(f"## {title}" in written for title in [*tables, "Defaults"])


@pytest.mark.parametrize("name", ["cuda", "cuda:1"])
def test_without_a_gpu_the_same_code_runs_on_the_cpu_and_the_report_says_so(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    measured = []
    monkeypatch.setattr(
        "autocrossdim.commands.device_check.check", lambda device, _: measured.append(device) or [Section("Table", [])]
    )
    monkeypatch.setattr("autocrossdim.commands.device_report.defaults", lambda _, **__: [])
    doctor(device=name, output=tmp_path / "report.md")
    assert measured == [torch.device("cpu")]
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert report.startswith("# autocrossdim on cpu (")
    assert f"--device {name}: this machine has no such GPU that PyTorch can use." in report


@pytest.mark.parametrize("name", ["cuda:1", "cuda:x", "gpu"])
def test_a_gpu_beside_others_that_does_not_exist_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr("autocrossdim.commands.doctor._findings", list)
    with pytest.raises(UserError, match=f"--device {name}"):
        doctor(device=name)


def test_a_network_that_needs_too_much_memory_has_no_speed() -> None:
    def fail(_: Path) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    fail.mirroring = True  # type: ignore[attr-defined]
    row = _speed("nnU-Net's for dx", fail, Path("image.nii.gz"))  # type: ignore[arg-type]
    assert (row["network"], row["voxels per second"]) == ("nnU-Net's for dx", None)


def test_a_table_that_cannot_be_measured_does_not_hide_the_others() -> None:
    def fail() -> tuple[list[dict[str, str | float | int | None]], str]:
        raise NotImplementedError("no such kernel\nand many details")

    fast = {"network": "dx", "mirroring": "yes", "on the device": "throughout", "voxels per second": 1e6}
    speeds = Section("Prediction", [fast])
    sections = [_section(title, fail) for title in ("Networks", "Memory", "Steps", "Depthwise", "Training")]
    report = DeviceReport("mps", [], [*sections, speeds], defaults([*sections, speeds]), seconds=1)
    console = Console(record=True, width=100)
    for part in report.terminal():
        console.print(part)
    for text in (report.markdown(), console.export_text()):
        assert "1,000,000" in text
        assert "Precision: not measured." in text
        assert text.count("Failed: NotImplementedError: no such kernel") == 5


def test_the_defaults_follow_from_the_tables() -> None:
    agreement = {"network": "dx", "precision": "bf16", "agrees": "yes"}
    step = {"network": "dx", "precision": "bf16", "channels last": "yes", "compiled": "no", "default": "yes"}
    fitting, step = {"computed / measured": 1.05}, {**step, "ms per step": 80.0}
    layers = {"depthwise (ms)": 2.0, "conv3d (ms)": 8.0}
    loader = {"augmentation on": "workers", "share waiting for data": 0.0, "speed / data on the device": 0.61}
    volume = {"network": "dx", "mirroring": "yes", "on the device": "throughout", "voxels per second": 2e6}
    volumes = [volume, {**volume, "mirroring": "no", "voxels per second": 8e6}]
    volumes.append({**volume, "network": "nnU-Net's for dx", "voxels per second": 1e6})
    rows = [[agreement], [fitting], [step], [layers], [loader], volumes]
    said = defaults([Section("Table", each) for each in rows])
    assert said[:2] == [
        "Precision: every network agrees with the CPU in fp32, bf16 and fp16.",
        "Memory: computed memory is 1.05 to 1.05 times the measured memory, within the goal. Keep the default budget.",
    ]
    assert said[2:4] == [
        "dx: bf16 with channels last is fastest, and the default.",
        "3D depthwise convolutions: those of DX-Net take 0.25 times as long as PyTorch's conv3d. Keep them.",
    ]
    assert "waits for data at most 0% of the time, but reaches only 61% of the speed" in said[4]
    assert said[5] == (
        "dx: prediction with mirroring, the default, takes 4.0 times as long as without; nnU-Net's layers take 2.00 "
        "times as long."
    )
    rows[4] = [{**loader, "share waiting for data": 0.4}, {**loader, "augmentation on": "cuda"}]
    assert defaults([Section("Table", each) for each in rows])[4] == (
        "Loader: training waits for data up to 40% of the time. Use more workers (--set workers=...), or --set "
        "augment_on_gpu=true, with which it is 0%."
    )


class Compiler:
    """A planner for which compiling a step takes 80 s, or fails if it may not take as long."""

    def __init__(self, clock: dict[str, float]) -> None:
        self.clock, self.limits = clock, list[float]()

    def measure_step(self, *_: object, compiling: float, **__: object) -> Any:
        self.limits.append(compiling)
        self.clock["now"] += min(compiling, 80.0)
        if compiling < 80:
            raise UserError(f"--device cuda: torch.compile took more than {compiling:g} s.")
        return SimpleNamespace(seconds=0.05)


def test_a_way_of_training_that_fails_does_not_hide_the_others(
    make_plan: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise NotImplementedError("no such kernel")

    monkeypatch.setattr(device_check, "train", fail)
    rows, _ = device_check.training(tmp_path, tmp_path, make_plan(), CPU, device_check.TOY, {})
    assert [row["augmentation on"] for row in rows] == ["workers: failed: NotImplementedError: no such kernel"]
    monkeypatch.setattr(device_check.Predictor, "load", fail)
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "image.nii.gz").touch()
    rows, _ = device_check.prediction(tmp_path, tmp_path, make_plan(), CPU)
    assert [row["on the device"] for row in rows] == ["failed: NotImplementedError: no such kernel"]


def test_compiling_gets_the_time_that_the_other_checks_leave(
    make_plan: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = {"now": 0.0}
    monkeypatch.setattr(device_check.time, "monotonic", lambda: clock["now"])
    plan = make_plan()
    plan = plan.model_copy(
        update={
            "configurations": {
                **plan.configurations,
                "omnia": plan.configuration().model_copy(update={"name": "omnia"}),
            }
        }
    )
    for deadline, limits in ((500, [120, 120]), (150, [75, 75]), (70, [35, 35]), (40, [])):
        clock["now"] = 0.0
        planner = Compiler(clock)
        rows, note = compiled_steps(plan, CPU, planner, limit=120, deadline=deadline)  # type: ignore[arg-type]
        assert planner.limits == limits
        assert [row["compiled"] for row in rows] == [
            "yes" if limit > 80 else f"torch.compile took more than {limit:g} s." for limit in limits
        ]
        assert (note == "") is bool(limits)
    assert note == "torch.compile was not tried for dx, omnia: little of the 8 minutes was left."


def test_a_request_to_stop_is_not_a_failed_table() -> None:
    def stop() -> tuple[list[dict[str, str | float | int | None]], str]:
        raise Interrupted("stopped by SIGTERM")

    with pytest.raises(Interrupted):
        _section("Training", stop)


def test_only_a_measured_device_has_a_report(command: Callable[..., Any]) -> None:
    result = command("doctor", "-o", "report.md")
    assert result.returncode == 2
    assert "Add --device" in result.stderr


def test_an_impossible_report_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unexpected(*_: object) -> None:
        raise AssertionError("the device is measured")

    monkeypatch.setattr("autocrossdim.commands.device_check.check", unexpected)
    with pytest.raises(UserError, match="is a directory. Name a file in it"):
        doctor(device="cpu", output=tmp_path)


def test_gpus_of_every_type_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("cuda", "mps"):
        module = torch.get_device_module(kind)
        monkeypatch.setattr(module, "is_available", lambda: True, raising=False)
        monkeypatch.setattr(module, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=16 * 1024**3))
    findings = doctor()
    assert "cuda:0: Tesla T4, 16 GB, trains in fp16" in findings
    assert "mps:0: Apple GPU, shares the memory of the CPU, trains in fp32" in findings
