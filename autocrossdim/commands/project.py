"""A dataset together with its work directory: what every command opens first."""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from autocrossdim.commands.arguments import Fold
from autocrossdim.data.dataset import Dataset, load_dataset
from autocrossdim.data.find import find_raw
from autocrossdim.data.splits import Split, load_or_make_splits
from autocrossdim.data.verify import findings
from autocrossdim.preprocessing.dataset import preprocess_cases
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.console import trace
from autocrossdim.system.errors import UserError
from autocrossdim.system.processes import default_processes, map_cases

if TYPE_CHECKING:
    from autocrossdim.selection.folds import CrossValidation

ALL = "all"  # the fold that trains on every case


@dataclass(frozen=True)
class Project:
    """A raw dataset and its workspace.

    Attributes:
        dataset: The raw dataset.
        workspace: Paths of its results.
    """

    dataset: Dataset
    workspace: Workspace

    @classmethod
    def open(cls, dataset: str | Path | int, *, work: str | Path | None = None, planned: bool = True) -> "Project":
        """Open a dataset by path, name or number.

        Args:
            dataset: Dataset directory, or its name or number below `$AUTOCROSSDIM_RAW` or `$nnUNet_raw`.
            work: Directory of all results.
            planned: Require that the dataset was planned.

        Raises:
            UserError: There is no such dataset, its dataset.json has faults, or it was not planned yet.
        """
        loaded = load_dataset(find_raw(dataset))
        project = cls(loaded, Workspace.of(loaded.name, None if work is None else Path(work)))
        trace(f"Dataset: {loaded.path.resolve()}; results: {project.workspace.root.resolve()}.")
        if planned:
            project.workspace.require_plan()
        return project

    @cached_property
    def plan(self) -> Plan:
        """The plan."""
        return Plan.read(self.workspace.plan)

    @cached_property
    def fingerprint(self) -> Fingerprint:
        """The fingerprint the plan rests on."""
        return Fingerprint.read(self.workspace.fingerprint)

    @cached_property
    def splits(self) -> list[Split]:
        """The folds of the cross-validation."""
        return load_or_make_splits(self.dataset, self.workspace.splits)[0]

    def store(self, configuration: str, *, processes: int | None = None) -> Store:
        """Return the preprocessed cases of a configuration; cases that are missing or outdated are preprocessed.

        Raises:
            UserError: The previous stage of a cascade is not trained and validated in all folds.
        """
        from autocrossdim.selection.stages import preprocessed  # imports torch

        return preprocessed(self.cross_validation(processes=processes), configuration)

    def cross_validation(self, *, device: str = "cpu", processes: int | None = None) -> "CrossValidation":
        """Return the dataset with its plan and folds, as model selection takes it."""
        from autocrossdim.selection.folds import CrossValidation  # imports torch

        processes = processes or default_processes()
        return CrossValidation(self.dataset, self.workspace, self.plan, self.splits, processes, device)

    def unlabelled_store(self, configuration: str, *, processes: int | None = None) -> Store:
        """Return the preprocessed unlabelled scans of a configuration, as `store` does the training cases.

        Raises:
            UserError: New scans have faults; the message lists all of them.
        """
        store = Store(self.workspace.unlabelled(configuration))
        cases, plan = self.dataset.unlabelled_cases(), self.plan
        # Scans may have been added since the dataset was planned and verified.
        new = [case for case in cases if not store.is_current(case)]
        checks = map_cases(
            partial(findings, self.dataset), new, processes or default_processes(), "Checking unlabelled scans"
        )
        if faults := [fault for check in checks for fault in check.faults]:
            raise UserError("\n".join(faults))
        preprocess_cases(cases, plan, plan.configuration(configuration), store, processes or default_processes())
        return store

    def unlabelled(self, fold: Fold) -> tuple[str, ...]:
        """Return the unlabelled scans a fold may learn from: those of no patient (group) it validates on."""
        groups = self.dataset.groups
        held_out = {groups.get(name, name) for name in self.split(fold).val}
        names = (case.name for case in self.dataset.unlabelled_cases())
        return tuple(name for name in names if groups.get(name, name) not in held_out)

    def folds(self, wanted: Collection[Fold]) -> list[Fold]:
        """Return the folds to train: those wanted, or all of the cross-validation.

        Raises:
            UserError: A fold does not exist, or there are too few cases for any.
        """
        count = len(self.splits)
        folds: list[Fold] = []
        for fold in wanted or range(count):
            if fold == ALL:
                folds.append(ALL)
            elif not str(fold).isdecimal():
                raise UserError(f"--fold {fold}: use a number or 'all'.")
            elif int(fold) >= count:
                existing = f"has the folds 0 to {count - 1}" if count else "has no folds: there are too few cases"
                raise UserError(f"--fold {fold}: {self.workspace.splits} {existing}. Use one of its folds, or 'all'.")
            else:
                folds.append(int(fold))
        if not folds:
            raise UserError(f"{self.workspace.splits}: too few cases for a cross-validation. Use --fold all.")
        return folds

    def split(self, fold: Fold) -> Split:
        """Return the cases of a fold; "all" trains on every case and validates on none."""
        if fold == ALL:
            return Split(train=tuple(sorted(case.name for case in self.dataset.training_cases())), val=())
        return self.splits[int(fold)]
