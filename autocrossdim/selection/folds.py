"""The folds of a dataset, and whether a trained fold can be used."""

from collections.abc import Sequence
from dataclasses import dataclass

from autocrossdim.data.dataset import Dataset
from autocrossdim.data.splits import Split
from autocrossdim.records.best import folder_name
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import FoldFolder, Workspace, default_work
from autocrossdim.selection.budget import Budget
from autocrossdim.selection.held_out import Names
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import command_line


@dataclass(frozen=True)
class CrossValidation:
    """A dataset, its plan and its folds.

    Attributes:
        dataset: The raw dataset.
        workspace: Its workspace.
        plan: Its plan.
        splits: Its folds.
        processes: Number of cases evaluated in parallel.
        device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.
    """

    dataset: Dataset
    workspace: Workspace
    plan: Plan
    splits: Sequence[Split]
    processes: int
    device: str

    def fold(self, names: Names, fold: int) -> FoldFolder:
        """Return the folder of a candidate's fold. Ensembles have folders beside those of the configurations."""
        return self.workspace.fold(folder_name(names), fold)

    def command(self, name: str, *words: str) -> str:
        """Return a command for this dataset as it can be copied to a shell; `words` are further words."""
        work = self.workspace.root.parent
        return command_line(name, self.dataset.path, *words, work=None if work == default_work() else work)

    def cases(self) -> list[tuple[int, str]]:
        """Return the fold and name of every held-out case."""
        return [(fold, case) for fold, split in enumerate(self.splits) for case in sorted(split.val)]


def usable(work: CrossValidation, name: str, fold: int) -> Budget | str:
    """Return the budget of a fold or, if it cannot be used, the reason, as the end of a sentence `fold 1 is ...`."""
    folder = work.workspace.fold(name, fold)
    if not folder.latest.exists():
        return "not trained"
    try:
        checkpoint = Checkpoint.read(folder.latest)
        budget = Budget.of(checkpoint, folder)
    except UserError:
        return "damaged or of another version (add --restart)"
    if not checkpoint.complete:
        return "not fully trained"
    if other := work.plan.differences(checkpoint.plan, [name]):
        return f"trained under another plan (different: {', '.join(other)}; add --restart)"
    if not checkpoint.trained_cases.isdisjoint(work.splits[fold].val):
        return "trained on other cases than splits.json lists now (add --restart)"
    if not folder.summary.exists():
        return "not validated"
    return budget
