"""`run`: what it refuses before it starts; whole runs are among the tests of the command line."""

from collections.abc import Callable
from pathlib import Path

import pytest

import autocrossdim
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.errors import UserError


@pytest.mark.parametrize(
    ("setting", "message"), [({"epoch": 3}, "Did you mean 'epochs'"), ({"learning_rate": -1}, "learning_rate")]
)
def test_settings_that_training_refuses_are_reported_before_preprocessing(
    make_dataset: Callable[..., Path], tmp_path: Path, setting: dict[str, object], message: str
) -> None:
    small = {"encoder": "test_efficientnet", "patch_size": (8, 8, 8), "batch_size": 2, "trial": False}
    path, work = make_dataset(), tmp_path / "work"
    with pytest.raises(UserError, match=message):
        autocrossdim.run(path, work=work, processes=1, set=setting, **small)
    workspace = Workspace.of(path.name, work)
    assert workspace.plan.exists()
    assert not workspace.preprocessed("dx").exists()
