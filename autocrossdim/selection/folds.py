"""The folds of a dataset, and whether a trained fold can be used."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from autocrossdim.data.dataset import Case, Dataset
from autocrossdim.data.splits import Split
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.best import folder_name
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan
from autocrossdim.records.sources import contents, file_versions
from autocrossdim.records.trained_on import Contents
from autocrossdim.records.workspace import FoldFolder, Workspace, default_work
from autocrossdim.selection.budget import Budget
from autocrossdim.selection.held_out import Names
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import command_line, listed

NOT_TRAINED = "not trained"  # why a fold without a checkpoint is unusable


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


class Unusable(Exception):
    """A fold cannot be used. The text is the reason, as the end of a sentence `fold 1 is ...`."""


def budget_of(work: CrossValidation, name: str, fold: int) -> Budget:
    """Return the budget with which a fold was trained, after checking that it can be used.

    Raises:
        Unusable: It is not trained or not validated, or it does not fit the present plan and folds.
    """
    folder = work.workspace.fold(name, fold)
    if not folder.latest.exists():
        raise Unusable(NOT_TRAINED)
    try:
        checkpoint = Checkpoint.read(folder.latest)
        budget = Budget.of(checkpoint, folder)
    except UserError as error:
        raise Unusable("damaged or of another version (add --restart)") from error
    if not checkpoint.complete:
        raise Unusable("not fully trained")
    if other := work.plan.differences(checkpoint.plan, [name]):
        raise Unusable(f"trained under another plan (different: {', '.join(other)}; add --restart)")
    split = work.splits[fold]
    of_case, groups = present_contents(work, name), work.dataset.groups
    if leaked := checkpoint.trained_on.among(split.val, split.train, of_case, groups):
        raise Unusable(
            f"trained on other cases than splits.json lists now: it would be validated with {listed(leaked)}, which it "
            "was trained on (add --restart)"
        )
    if not folder.summary.exists():
        raise Unusable("not validated")
    return budget


def present_contents(work: CrossValidation, name: str) -> Contents:
    """Return what gives the content hashes of a case's present files.

    Files that are unchanged since they were preprocessed for the configuration are not read.
    """
    # The cases of a cascade have one file more, so the store of its previous stage is asked.
    store = Store(work.workspace.preprocessed(work.plan.configuration(name).previous_stage or name))

    @cache
    def cases() -> dict[str, Case]:
        return {case.name: case for case in work.dataset.training_cases()}

    def of(case_name: str) -> frozenset[str]:
        case = cases()[case_name]
        known = store.record(case_name).source if store.has(case_name) else ()
        return contents(file_versions(case.source_files, known), len(case.images), case.annotated_labels)

    return of
