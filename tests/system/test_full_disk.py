"""A disk that is full ends in one clear line, and in no file that looks whole.

Files of a process can be limited in size, which its writers see as they see a full disk.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

resource = pytest.importorskip("resource")
LIMIT = 20_000  # bytes; the JSON files and pictures of a small dataset are smaller, its arrays larger
# Coverage is not measured in these processes: its own data file would exceed the limit.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}

WRITERS = """
import json, resource, sys
from pathlib import Path
import numpy as np
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import write_array, write_label
from autocrossdim.preprocessing import arrays
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import write_text

folder = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
random = np.random.default_rng(0)
volume, plane = random.integers(0, 200, (40, 60, 60)), random.integers(0, 200, (1, 300, 300))
flat = Geometry(plane.shape, (1, 1, 1), (0, 0), (1, 0, 0, 1), 2)
solid = Geometry(volume.shape, (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 3)


writers = {
    "store.b2nd": lambda path: arrays.write_array(path, volume, volume.shape),
    "text": lambda path: write_text(path, "x" * 100_000),
    **{f"volume{e}": lambda path: write_label(volume, solid, path) for e in (".nii.gz", ".nii", ".nrrd", ".mha")},
    **{f"slice{e}": lambda path: write_label(plane, flat, path) for e in (".png", ".tif", ".bmp")},
    "map.nii.gz": lambda path: write_array(volume / 7, solid, path),
}
told = {}
for name, write in writers.items():
    try:
        write(folder / name)
        told[name] = "written"
    except UserError as error:
        told[name] = str(error)
print(json.dumps(told))
"""


def written(folder: Path, limit: int) -> dict[str, str]:
    command = [sys.executable, "-c", WRITERS, str(folder), str(limit)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    result: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return result


def test_every_writer_notices(tmp_path: Path) -> None:
    for name, told in written(tmp_path, LIMIT).items():
        assert told.startswith(f"{tmp_path / name}: cannot be written"), f"{name}: {told}"
        assert "\n" not in told
    assert not list(tmp_path.iterdir())


def test_with_room_all_are_written(tmp_path: Path) -> None:
    assert set(written(tmp_path, 10**8).values()) == {"written"}


@pytest.mark.slow
def test_preprocessing_and_training_end_in_one_line(tmp_path: Path, write_nodules: Callable[[Path], Path]) -> None:
    raw, work = write_nodules(tmp_path), tmp_path / "work"

    def run(*words: object, limit: int) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "autocrossdim", *map(str, words), "--work", str(work)],
            capture_output=True,
            encoding="utf-8",
            check=False,
            env=ENVIRONMENT,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
        )
        return done.returncode, done.stderr.strip().splitlines()[-1]

    plan = ("plan_and_preprocess", raw, "--encoder", "test_efficientnet", "--patch-size", "16,16,16", "--no-trial")
    code, last = run(*plan, limit=LIMIT)
    assert (code, last.partition(":")[0]) == (2, "error"), last
    assert "cannot be written" in last
    assert run(*plan, limit=10**8)[0] == 0  # goes on where it stopped
    train = ("train", raw, "--weights", "random", "--fold", "0", "--epochs", "1", "--set", "steps_per_epoch=1")
    code, last = run(*train, "--set", "slices_first=false", "--set", "workers=0", limit=LIMIT)
    assert (code, last.partition(":")[0]) == (2, "error"), last
    assert "checkpoint_best: cannot be written" in last  # written before checkpoint_latest
