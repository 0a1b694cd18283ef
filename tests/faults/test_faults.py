"""Commands that are killed, or refused by the file system, at some of the places that `benchmarks/faults.py` tries.

A process of its own forks for each trial, because libraries with threads that other tests have used cannot be forked.
"""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("trials.py")
# One boundary of each kind per command; the training with unlabelled scans only prepares what the others need.
COUNTS = {"kills": 1, "errors": 1, "limits": 0, "moments": 0}
COMMANDS = (
    "convert",
    "plan",
    "preprocess",
    "train",
    "find_best",
    "predict",
    "ensemble",
    "export",
    "annotate_next",
    "report",
)

if sys.platform != "linux":
    pytest.skip("the size of a pipe and /proc exist on Linux only", allow_module_level=True)


@pytest.mark.slow
def test_each_command_run_again_gives_the_files_of_an_undisturbed_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(HARNESS), str(tmp_path), json.dumps(COUNTS), *COMMANDS],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == 0, done.stderr
    trials = [json.loads(line) for line in done.stdout.splitlines()]
    assert not [trial for trial in trials if trial["problems"]]
    assert Counter(trial["command"] for trial in trials) == dict.fromkeys(COMMANDS, 2)
    assert all(trial["is_reached"] for trial in trials if trial["kind"] == "kill")
