from collections.abc import Callable
from pathlib import Path

from autocrossdim.commands.next_step import next_step
from autocrossdim.records.plan import Plan


def test_the_next_command_can_be_copied_to_a_shell() -> None:
    assert next_step("train", "my data/Dataset001_A", work="w") == (
        "Next: autocrossdim train 'my data/Dataset001_A' --work w"
    )
    assert next_step("predict", "1", "-i", "IMAGES") == "Next: autocrossdim predict 1 -i IMAGES"


def test_the_command_after_plan_leads_to_the_same_plan(
    succeed: Callable[..., str], make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    raw, work = make_dataset(), tmp_path / "work"
    options = ("--encoder", "test_efficientnet", "--patch-size", "8,8,8", "--batch-size", "2", "--planner", "dx")
    said = succeed("plan", raw, "--work", work, *options, "--no-trial")
    (line,) = [line for line in said.splitlines() if line.startswith("Next: ")]
    before = Plan.read(work / raw.name / "plan.json")
    for name, value in zip(options[::2], options[1::2], strict=True):
        assert f" {name} {value}" in line
    words = line.removeprefix("Next: autocrossdim ").split()
    succeed(*words, "--no-trial")
    after = Plan.read(work / raw.name / "plan.json")
    assert after.overrides == before.overrides
    assert after.differences(before, list(before.configurations)) == []
