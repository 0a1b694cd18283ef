"""Cases that are renamed after training, as by pseudonymisation, never validate what was trained on them."""

import json
import shutil
from pathlib import Path

import pytest

import autocrossdim
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.system.errors import UserError

NAMES = {"case_00": "p3", "case_01": "p4", "case_02": "p0", "case_03": "p2", "case_04": "p1"}


class Renamed:
    """A copy of the planned dataset, of which fold 0 is trained before all cases are renamed."""

    def __init__(self, planned: tuple[Path, Path], folder: Path, quick: dict[str, object]) -> None:
        raw, work = planned
        self.raw = Path(shutil.copytree(raw, folder / raw.name))
        self.work = Path(shutil.copytree(work, folder / "own"))
        self.space, self.quick = Workspace.of(raw.name, self.work), quick
        self.train()
        for old, new in NAMES.items():
            for kind, file in (("imagesTr", f"{old}_0000.nii.gz"), ("labelsTr", f"{old}.nii.gz")):
                (self.raw / kind / file).rename(self.raw / kind / file.replace(old, new))

    def plan(self) -> None:
        autocrossdim.plan_and_preprocess(
            self.raw, work=self.work, encoder="test_efficientnet", memory=1, trial=False, processes=1
        )

    def train(self, weights: str = "random") -> FoldFolder:
        autocrossdim.train(self.raw, work=self.work, config="dx", fold=0, weights=weights, set=self.quick)
        return self.space.fold("dx", 0)


@pytest.fixture
def renamed(planned: tuple[Path, Path], tmp_path: Path, quick: dict[str, object]) -> Renamed:
    return Renamed(planned, tmp_path, quick)


def test_a_fold_of_renamed_cases_is_still_trained(renamed: Renamed, capfd: pytest.CaptureFixture[str]) -> None:
    before = Checkpoint.read(renamed.space.fold("dx", 0).latest)
    renamed.plan()
    said = capfd.readouterr().err
    assert "are renamed copies of" in said
    assert "dx fold 0 was trained on" not in said
    folder = renamed.train()
    assert "dx fold 0: already trained." in capfd.readouterr().err
    after = Checkpoint.read(folder.latest)
    assert after.run == before.run
    assert {file.name for file in folder.validation.glob("p*.nii.gz")} == {
        f"{NAMES[name]}.nii.gz" for name in before.split["val"]
    }


@pytest.mark.parametrize("recorded", [True, False])  # whether the checkpoint knows the images alone
def test_a_renamed_case_does_not_validate_the_fold_that_was_trained_on_it(renamed: Renamed, recorded: bool) -> None:
    folder = renamed.space.fold("dx", 0)
    checkpoint = Checkpoint.read(folder.latest)
    if not recorded:
        checkpoint.images = {}
        checkpoint.write(folder.latest)
        checkpoint.write(folder.best)
    seen = checkpoint.split["train"][0]
    others = sorted(set(NAMES.values()) - {NAMES[seen]})
    # A file of the user asks for it.
    splits = [{"train": others, "val": [NAMES[seen]]}, {"train": [NAMES[seen]], "val": others}]
    (renamed.raw / "splits_final.json").write_text(json.dumps(splits))
    renamed.plan()
    for weights in ("random", "previous"):
        with pytest.raises(
            UserError, match=rf"{NAMES[seen]} \(then named {seen}\), which it was trained on.*--restart"
        ):
            renamed.train(weights)
    # Nor is it forgotten when the weights were trained again without the case.
    checkpoint.split["train"].remove(seen)
    checkpoint.provenance |= checkpoint.trained_on.provenance()
    checkpoint.sources, checkpoint.images = {}, {}
    for path in (folder.latest, folder.best):
        checkpoint.write(path)
    with pytest.raises(UserError, match=rf"{NAMES[seen]} \(then named {seen}\), which it was trained on.*--restart"):
        renamed.train("previous")
