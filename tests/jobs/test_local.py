import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import autocrossdim
from autocrossdim.jobs import command
from autocrossdim.jobs.local import Slot, run_together, slots, visible_gpus
from autocrossdim.system.console import logger
from autocrossdim.system.errors import UserError

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process die with its parent")


def python(code: str, *words: object) -> list[str]:
    """A command that stands in for a training."""
    return [sys.executable, "-c", code, *map(str, words)]


def eventually(true: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_call_becomes_the_words_of_a_command() -> None:
    words = command("train", "Dataset004", fold=(0, "all"), restart=True, config=None, set={"epochs": 2, "seed": None})
    assert words[1:] == [
        *("-m", "autocrossdim", "train", "Dataset004", "--fold", "0", "--fold", "all", "--restart"),
        *("--set", "epochs=2", "--set", "seed=null"),
    ]


def test_a_command_shows_as_many_messages_as_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for level, flags in ((logging.WARNING, ["-q"]), (logging.DEBUG, ["-v"]), (logging.INFO, [])):
        monkeypatch.setattr(logger, "level", level)
        assert command("train")[3:] == [*flags, "train"]


def test_gpus_are_dealt_out_and_shared_where_there_are_too_few() -> None:
    assert [slot.gpus for slot in slots(3, ["0", "1", "2"])] == [("0",), ("1",), ("2",)]
    assert [slot.gpus for slot in slots(2, ["4", "5", "6", "7"], each=2)] == [("4", "5"), ("6", "7")]
    assert [slot.gpus for slot in slots(3, ["0", "1"])] == [("0",), ("1",), ("0",)]
    assert [slot.gpus for slot in slots(2, [])] == [(), ()]


def test_a_quiet_command_has_quiet_processes(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logger, "level", logging.WARNING)
    speaks = python("from autocrossdim.system.console import say, warn; say('a message'); warn('a warning')")
    run_together({"fold 0": speaks}, [Slot()])
    shown = capfd.readouterr().err
    assert "fold 0: warning: a warning" in shown
    assert "a message" not in shown


@linux_only
def test_cores_are_divided_among_the_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {2, 3, 4, 5, 6})
    assert [slot.cores for slot in slots(2, [])] == [{2, 4, 6}, {3, 5}]
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1})
    assert [slot.cores for slot in slots(2, [])] == [{1}, {1}]


def test_gpus_go_by_the_names_they_were_made_visible_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert visible_gpus("auto") == ["0", "1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-7f")
    assert visible_gpus("cuda") == ["3", "GPU-7f"]
    assert visible_gpus("cuda:1") == []
    assert visible_gpus("cpu") == []


def test_each_command_has_a_gpu_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Each waits until the other runs, so that this ends only if both run at a time.
    code = """if True:
        import os, pathlib, sys, time
        mine, other = sys.argv[1:]
        pathlib.Path(mine).touch()
        while not pathlib.Path(other).exists():
            time.sleep(0.02)
        print("on", os.environ["CUDA_VISIBLE_DEVICES"])"""
    names = {name: tmp_path / name for name in ("a", "b")}
    commands = {"fold 0": python(code, names["a"], names["b"]), "fold 1": python(code, names["b"], names["a"])}
    run_together(commands, [Slot(("5",)), Slot(("6",))])
    said = capsys.readouterr().err.splitlines()
    said = sorted(line.split(" ", 2)[2] for line in said)  # after the time
    assert said in (["fold 0: on 5", "fold 1: on 6"], ["fold 0: on 6", "fold 1: on 5"])


def test_a_slot_runs_one_command_at_a_time(tmp_path: Path) -> None:
    alone = "import os, sys, time; os.mkdir(sys.argv[1]); time.sleep(0.1); os.rmdir(sys.argv[1])"
    run_together({f"fold {n}": python(alone, tmp_path / "lock") for n in range(4)}, [Slot()])


def test_a_failed_command_is_named_with_its_last_lines_and_the_others_finish(tmp_path: Path) -> None:
    fails = python("print('epoch 1'); raise SystemExit('error: no space')")
    killed = python("import os; os.kill(os.getpid(), 9)")
    works = python("import pathlib, sys, time; time.sleep(0.5); pathlib.Path(sys.argv[1]).touch()", tmp_path / "done")
    with pytest.raises(UserError) as error:
        run_together({"fold 0": fails, "fold 1": killed, "fold 2": works}, [Slot(), Slot()])
    lines = str(error.value).splitlines()
    assert lines[0] == "2 of 3 failed; the others are complete."
    assert "fold 0 ended with exit code 1:\n    epoch 1\n    error: no space" in str(error.value)
    assert "fold 1 was killed by SIGKILL:" in lines
    assert (tmp_path / "done").exists()


# Writes its process's number, and "checkpoint" when it is asked to end, then sleeps on for a moment.
TRAINING = """if True:
    import os, pathlib, signal, sys, time
    folder = pathlib.Path(sys.argv[1])
    def stop(*_):
        (folder / f"checkpoint_{sys.argv[2]}").touch()
        raise SystemExit(143)
    signal.signal(signal.SIGTERM, stop)
    (folder / "new").write_text(str(os.getpid()))
    (folder / "new").rename(folder / f"process_{sys.argv[2]}")
    time.sleep(100)"""
PARENT = """if True:
    import json, sys
    from autocrossdim.jobs.local import Slot, run_together
    run_together(json.loads(sys.argv[1]), [Slot(), Slot()])"""


def is_alive(process: int) -> bool:
    stat = Path(f"/proc/{process}/stat")
    try:
        return stat.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@linux_only
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGKILL])
def test_no_process_is_left_behind(tmp_path: Path, number: signal.Signals) -> None:
    commands = {}
    for n in "012":
        (tmp_path / n).mkdir()
        commands[f"fold {n}"] = python(TRAINING, tmp_path / n, n)
    parent = subprocess.Popen(python(PARENT, json.dumps(commands)), stderr=subprocess.PIPE, encoding="utf-8")
    files = [tmp_path / n / f"process_{n}" for n in "01"]
    eventually(lambda: all(file.exists() for file in files))
    processes = [int(file.read_text(encoding="utf-8")) for file in files]
    assert all(map(is_alive, processes))
    parent.send_signal(number)
    _, errors = parent.communicate(timeout=60)
    assert parent.returncode != 0
    eventually(lambda: not any(map(is_alive, processes)), 10)
    assert not (tmp_path / "2" / "process_2").exists(), "the third one must not start any more"
    if number != signal.SIGKILL:
        assert {file.name for file in tmp_path.rglob("checkpoint_*")} == {"checkpoint_0", "checkpoint_1"}
        assert ("KeyboardInterrupt" if number == signal.SIGINT else "Interrupted: Stopped by SIG") in errors


@pytest.mark.slow
def test_two_folds_are_trained_at_a_time(tmp_path: Path, write_nodules: Callable[[Path], Path]) -> None:
    raw = write_nodules(tmp_path)

    autocrossdim.plan_and_preprocess(
        raw,
        work=tmp_path / "work",
        encoder="test_efficientnet",
        patch_size=(16, 16, 16),
        batch_size=2,
        trial=False,
    )
    settings = ("steps_per_epoch=2", "validation_batches=1", "slices_first=false", "workers=1")
    quick = ("--weights", "random", "--epochs", "1", *(word for setting in settings for word in ("--set", setting)))
    words = ("train", raw, "--work", tmp_path / "work", *quick, "--fold", "0", "--fold", "1", "--parallel", "2")
    result = subprocess.run(
        [sys.executable, "-m", "autocrossdim", *map(str, words)], capture_output=True, encoding="utf-8", check=False
    )
    assert result.returncode == 0, result.stderr
    for fold in (0, 1):
        assert f"fold {fold}: dx fold {fold}: epoch 1" in result.stderr
    model = tmp_path / "work" / raw.name / "models" / "dx"
    assert {file.name for file in model.iterdir()} == {"fold_0", "fold_1", "summary.json"}
    assert len(json.loads((model / "summary.json").read_text(encoding="utf-8"))["metric_per_case"]) == 2
