from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autocrossdim
from autocrossdim.commands.plugins import FoldTask
from autocrossdim.data.dataset import load_dataset
from autocrossdim.data.splits import load_or_make_splits
from autocrossdim.inference.model import Model
from autocrossdim.preprocessing.dataset import preprocess_dataset
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.best import Best
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.labels import Labels
from autocrossdim.records.plan import Plan
from autocrossdim.records.run_state import RunState
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.files import write_json
from trainers.validation import validate

CASES = ("a", "b", "c", "d", "e", "f")
LABELS = Labels.from_dataset_json({"background": 0, "block": 1})
# Intensities are 50 +- 5 outside and 90 +- 5 inside: the first threshold is right, the others segment too little or
# too much.
RIGHT, HIGH, LOW = 70.0, 92.0, 46.0


class Threshold(nn.Module):
    """Segments all voxels brighter than a threshold."""

    def __init__(self, threshold: float) -> None:
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(threshold))

    def forward(self, x: Tensor) -> Tensor:
        inside = (x[:, :1] - self.threshold) / 4
        return torch.cat([-inside, inside], dim=1)


class Trained:
    """A dataset whose configurations were 'trained' to thresholds, which are all that the checkpoints contain."""

    def __init__(self, raw: Path, work: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
        self.raw, self.work, self.plan = raw, work, plan
        self.space = Workspace.of(raw.name, work)
        self.dataset = load_dataset(raw)
        plan.write(self.space.plan)
        splits = [{"train": [c for c in CASES if c not in val], "val": list(val)} for val in ("ab", "cd", "ef")]
        write_json(self.space.splits, splits)
        self.splits, _ = load_or_make_splits(self.dataset, self.space.splits)
        self.loaded: list[Path] = []

        def of(checkpoints: Iterable[tuple[Path, Checkpoint]], device: torch.device, **_: object) -> Model:
            paths, found = zip(*checkpoints, strict=True)
            self.loaded += paths
            networks = [Threshold(float(checkpoint.network["threshold"])).eval() for checkpoint in found]
            return Model(plan, plan.configuration(found[0].configuration), networks)

        monkeypatch.setattr(Model, "of", of)

    def train(
        self,
        name: str,
        threshold: float,
        folds: Sequence[int] = (0, 1, 2),
        validated: bool = True,
        steps: int = 50,
        **settings: Any,
    ) -> None:
        configuration = self.plan.configuration(name)
        store = Store(self.space.preprocessed(name))
        preprocess_dataset(self.dataset, self.plan, configuration, store, processes=1)
        for fold in folds:
            split, folder = self.splits[fold], self.space.fold(name, fold)
            Checkpoint(
                plan=self.plan,
                configuration=name,
                fold=fold,
                split={"train": list(split.train), "val": list(split.val)},
                network={"threshold": torch.tensor(threshold + fold)},
                settings=settings,
                provenance={},
                run=RunState(epoch=1, step=steps, seconds=0.6 * steps, complete=True),
            ).write(folder.latest)
            if validated:
                groups = self.dataset.groups
                validate(FoldTask(self.plan, configuration, store, groups, fold, split, folder, device="cpu"))

    def find_best(self) -> Best:
        return autocrossdim.find_best(self.raw, work=self.work, device="cpu", processes=1)


@pytest.fixture
def trained(
    tmp_path: Path,
    make_dataset: Callable[..., Path],
    make_plan: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Trained:
    raw = make_dataset(cases=CASES, direction=np.eye(3).ravel())
    volumes, slices = (make_plan(dims, (2.0, 1.0, 1.0), labels=LABELS) for dims in (3, 2))
    both = volumes.configurations | slices.configurations
    dear = both["dx"].model_copy(update={"cost": both["dx"].cost.model_copy(update={"multiply_adds_per_case": 10**9})})
    plan = volumes.model_copy(update={"configurations": both | {"dx": dear}})
    return Trained(raw, tmp_path / "work", plan, monkeypatch)
