import os
import subprocess
import sys
from pathlib import Path


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "autocrossdim", *map(str, words)],
        capture_output=True,
        encoding="utf-8",
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"},
        timeout=300,
        check=False,
    )


def test_a_file_is_exported_and_a_damaged_one_refused_in_one_line(trained: Path, tmp_path: Path) -> None:
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
