import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autocrossdim.system import lock
from autocrossdim.system.errors import UserError
from autocrossdim.system.lock import locked

HOLD = """
import sys
from pathlib import Path
from autocrossdim.system.lock import locked
with locked(Path(sys.argv[1]), Path(sys.argv[1]).parent):
    print("locked", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Hold a lock in another process."""
    words = [sys.executable, "-c", HOLD, str(file)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield process
        process.kill()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SECONDS_TO_END", 0.0)
    monkeypatch.setattr(lock, "SECONDS_TO_EXPIRE", 0.2)
    monkeypatch.setattr(lock, "SECONDS_BETWEEN_TRIES", 0.01)


def test_another_process_is_named_and_a_killed_one_does_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "out" / ".lock"
    with another_process(file) as process:
        with pytest.raises(UserError) as refused, locked(file, tmp_path / "out"):
            pass
        assert f"out: process {process.pid} on {platform.node()} is writing to it" in str(refused.value)
        process.kill()
        process.wait()
        assert file.exists(), "killed, so that it could not remove the file"
        with locked(file, tmp_path / "out"):
            assert f"process {os.getpid()} on" in file.read_text(encoding="utf-8")
    assert not file.exists()


def test_a_process_that_waits_comes_in_after_the_other_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file, order = tmp_path / ".lock", []

    def second() -> None:
        with locked(file, tmp_path, wait=True):
            order.append("second")

    with locked(file, tmp_path):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]
    assert f"Waiting for process {os.getpid()}" in capfd.readouterr().err


def test_nothing_is_left_where_nothing_was_written(tmp_path: Path) -> None:
    with locked(tmp_path / "new" / "work" / ".lock", tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_directory_that_cannot_be_written_to_is_not_locked(unprivileged: Path) -> None:
    unprivileged.chmod(0o500)
    with locked(unprivileged / ".lock", unprivileged):
        assert not list(unprivileged.iterdir())


def test_a_lock_file_of_another_user_locks_too(unprivileged: Path) -> None:
    file = unprivileged / ".lock"
    with locked(file, unprivileged):
        file.chmod(0o444)  # as another user sees it
        with pytest.raises(UserError, match="is writing to it"), locked(file, unprivileged):
            pass
    file.touch(0o444)  # left behind by a killed process
    with locked(file, unprivileged):
        pass
    assert not list(unprivileged.iterdir())


def test_a_process_on_another_machine_is_given_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / ".lock"
    with locked(file, tmp_path):
        monkeypatch.setattr(platform, "node", lambda: "another-machine")
        start = time.monotonic()
        with pytest.raises(UserError, match=f"process {os.getpid()} on .* is writing to it"), locked(file, tmp_path):
            pass
        assert time.monotonic() - start > 0.2
    assert "it may have been killed" in capfd.readouterr().err


def test_a_directory_that_vanishes_meanwhile_is_created_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, opened = tmp_path / "out", []

    def open_late(path: Path, *rest: int) -> int:
        opened.append(path)
        if len(opened) == 1:
            folder.rmdir()
        return actually_open(path, *rest)

    actually_open = os.open
    monkeypatch.setattr(os, "open", open_late)
    with locked(folder / ".lock", folder):
        assert (folder / ".lock").exists()


def test_a_lock_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file/\.lock: cannot be written"),
        locked(tmp_path / "file" / ".lock", tmp_path),
    ):
        pass


def test_predict_refuses_a_directory_that_another_process_writes_to(
    write_model: Callable[..., Path], write_image: Callable[..., Path], command: Callable[..., object], tmp_path: Path
) -> None:
    model, output = write_model(tmp_path / "model"), tmp_path / "out"
    import numpy as np

    write_image(tmp_path / "in" / "a_0000.nii.gz", np.zeros((8, 8, 8), np.float32))
    predict = ("predict", model, "-i", tmp_path / "in", "-o", output, "--device", "cpu")
    with another_process(output / ".lock") as process:
        refused = command(*predict)
        assert refused.returncode == 2
        assert f"{output}: process {process.pid} on {platform.node()} is writing to it" in refused.stderr
        assert not (output / "a.nii.gz").exists()
        part = command(*predict, "--part", "1/2")
        assert part.returncode == 2
        assert f"{output}: process {process.pid} on" in part.stderr
    assert command(*predict).returncode == 0
    assert not list(output.glob(".*"))


def test_parts_of_a_directory_are_segmented_side_by_side_but_not_beside_all_of_it(
    write_model: Callable[..., Path], write_image: Callable[..., Path], command: Callable[..., object], tmp_path: Path
) -> None:
    model, output = write_model(tmp_path / "model"), tmp_path / "out"
    import numpy as np

    write_image(tmp_path / "in" / "a_0000.nii.gz", np.zeros((8, 8, 8), np.float32))
    predict = ("predict", model, "-i", tmp_path / "in", "-o", output, "--device", "cpu")
    with locked(output / ".lock", output, shared=True), locked(output / ".part-0-of-2.lock", output):
        assert command(*predict, "--part", "1/2").returncode == 0
        for words in ((), ("--part", "0/2")):
            refused = command(*predict, *words)
            assert refused.returncode == 2
            assert "is writing to it" in refused.stderr
    assert command(*predict).returncode == 0
    assert not list(output.glob(".*"))


def test_the_last_one_to_share_a_lock_removes_it(tmp_path: Path) -> None:
    file = tmp_path / ".lock"
    with locked(file, tmp_path, shared=True):
        with locked(file, tmp_path, shared=True):
            pass
        assert file.exists()
        with pytest.raises(UserError, match="is writing to it"), locked(file, tmp_path):
            pass
    assert not file.exists()
    with (
        locked(file, tmp_path),
        pytest.raises(UserError, match="is writing to it"),
        locked(file, tmp_path, shared=True),
    ):
        pass
