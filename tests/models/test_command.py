import subprocess
from collections.abc import Callable
from pathlib import Path


def test_a_file_is_exported_and_a_damaged_one_refused_in_one_line(
    trained: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    file = tmp_path / "tiny.acd"
    words = ["export", trained.name, "--work", trained.parent, "-o", file, "--fold", "1"]
    result = command(*words)
    assert result.returncode == 0, result.stderr
    assert "dx fold_1" in result.stderr
    content = file.read_bytes()
    file.write_bytes(content[:-1000])
    (tmp_path / "in").mkdir()
    result = command("predict", file, "-i", tmp_path / "in", "-o", tmp_path / "out")
    assert result.returncode == 2
    assert result.stderr.startswith(f"error: {file}: damaged")
    assert len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()
