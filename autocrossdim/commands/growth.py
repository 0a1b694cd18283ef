"""What `plan` does with a planned dataset to which cases were added, or from which cases were removed.

Plan, folds and preprocessed cases are kept, so that trained folds remain usable and old results comparable. What is new
is measured, assigned to a fold and preprocessed. A change of what the labels or images mean is refused.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autocrossdim.commands.arguments import Fold
from autocrossdim.commands.project import ALL, Project
from autocrossdim.data.annotation_notes import renewed_notes
from autocrossdim.data.case_keys import KEYS
from autocrossdim.preprocessing.fingerprint import common_orientation
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.plan import Plan
from autocrossdim.records.plan_options import PlanOptions
from autocrossdim.records.sources import content_hash, contents
from autocrossdim.records.trained_on import Contents
from autocrossdim.system.console import say, warn
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json
from autocrossdim.system.text import command_line, counted, listed

if TYPE_CHECKING:
    from autocrossdim.records.checkpoint import Checkpoint

# Keys of dataset.json that say something about single cases, or about the files that are written.
FREE = frozenset({"numTraining", "groups", "annotated_labels", "codes"})
OVERWRITE = (
    "Undo the change, or plan again with --overwrite: the dataset is then measured, split and preprocessed again, and "
    "trained folds have to be trained again with --restart."
)


@dataclass(frozen=True)
class CaseChange:
    """The cases that came and went since a dataset was measured, sorted by name."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed)

    @property
    def sentence(self) -> str:
        """The change in words."""
        parts = [
            f"{counted(len(names), 'case')} {'was' if len(names) == 1 else 'were'} {what} ({listed(names, 10)})"
            for names, what in ((self.added, "added"), (self.removed, "removed"))
            if names
        ]
        return f"{' and '.join(parts)} since the dataset was planned."


def open_unchanged(dataset: str | Path | int, *, work: str | Path | None) -> Project:
    """Open a planned dataset, with a warning if cases were added since; arguments as for `Project.open`.

    Raises:
        UserError: It was not planned, or its labels or images have another meaning now.
    """
    project = Project.open(dataset, work=work)
    warn_of_new_cases(project)
    return project


def warn_of_new_cases(project: Project) -> None:
    """Warn of cases that were added since the dataset was planned.

    Raises:
        UserError: dataset.json changed in something else than its cases.
    """
    if added := find_change(project).added:
        warn(
            f"{listed(added, 10)} {'is' if len(added) == 1 else 'are'} new and not in any fold. Run "
            "`autocrossdim plan_and_preprocess` to add new cases to the folds."
        )


def find_change(project: Project) -> CaseChange:
    """Return which cases came and went since a dataset was measured; none if it never was.

    Raises:
        UserError: dataset.json changed in something else than its cases.
    """
    dataset, workspace = project.dataset, project.workspace
    if not workspace.fingerprint.exists():
        return CaseChange()
    before, now = set(project.fingerprint.names), {case.name for case in dataset.training_cases()}
    change = CaseChange(tuple(sorted(now - before)), tuple(sorted(before - now)))
    keys = incompatible_keys(read_json(workspace.dataset_json), dataset.description, before ^ now)
    if keys:
        raise UserError(
            f"{dataset.path / 'dataset.json'}: {listed(keys)} changed since the dataset was planned. {OVERWRITE}"
        )
    return change


def renamed_copies(before: Fingerprint, now: Fingerprint, added: Collection[str], images: int) -> dict[str, str]:
    """Return the earlier case of each new one whose images are those of an earlier case, as after pseudonymisation.

    Args:
        before: Fingerprint before cases were added.
        now: Present fingerprint.
        added: Names of the new cases.
        images: Number of image files per case.
    """
    # Of several earlier cases with the same images, one that is gone is rather the one that was renamed.
    earlier = sorted(before.cases, key=lambda case: case.name not in now.names)
    known = {content_hash(case.source[:images]): case.name for case in earlier if case.source}
    return {
        case.name: known[content]
        for case in now.cases
        if case.name in added and case.source and (content := content_hash(case.source[:images])) in known
    }


def incompatible_keys(before: Mapping[str, Any], now: Mapping[str, Any], changed: Iterable[str]) -> list[str]:
    """Return the keys of dataset.json that changed in more than the cases that came and went, sorted.

    Args:
        before: Content when the dataset was planned.
        now: Present content.
        changed: Names of the cases that came and went; what a key says about them by name may change.
    """
    cases = set(changed)

    def meaning(content: Mapping[str, Any], key: str) -> Any:
        value = content.get(key)
        if isinstance(value, dict):
            value = {k: v for k, v in value.items() if k not in cases}
        # An empty value means the same as none, but `mirror_axes: []` mirrors no axis instead of those of the planner.
        return value if value or key == "mirror_axes" else None

    return sorted(key for key in frozenset(KEYS) - FREE if meaning(before, key) != meaning(now, key))


def kept_plan(project: Project, fingerprint: Fingerprint, options: PlanOptions, planner: str) -> Plan | None:
    """Return the existing plan if it is kept: cases came or went since it was made, and the options are the same.

    Its notes on annotation are those of the present cases; no training depends on them.

    Raises:
        UserError: The new cases do not fit it.
    """
    workspace = project.workspace
    if not workspace.plan.exists():
        return None
    try:
        plan = project.plan
    except UserError:
        if fingerprint.grown:
            raise
        return None  # a new plan is made
    before, now = plan.overrides, options.overrides(None if planner == "auto" else planner)
    if before != now:
        names = [name for name in sorted(before.keys() | now.keys()) if before.get(name) != now.get(name)]
        changes = [f"{name}: {before.get(name, 'default')} -> {now.get(name, 'default')}" for name in names]
        differ = f"The options differ from those of the existing plan ({listed(changes)})"
        say(f"{differ}, so a new plan is created.{_to_train_again(project)}")
        return None
    if not fingerprint.grown:
        return None
    if plan.dims != fingerprint.dims:
        raise UserError(
            f"{workspace.plan}: made for {plan.dims}D images, but the images are {fingerprint.dims}D now. {OVERWRITE}"
        )
    orientation = common_orientation(fingerprint)
    if plan.orientation is None and orientation is not None and not options.keep_orientation:
        raise UserError(
            f"{workspace.plan}: made for images of unknown orientation, but there are images of orientation "
            f"{orientation} now, so it is unclear whether they agree. {OVERWRITE}"
        )
    return plan.model_copy(update={"notes": renewed_notes(plan.notes, project.dataset, fingerprint)})


def _to_train_again(project: Project) -> str:
    if any(project.workspace.model(name).exists() for name in project.plan.configurations):
        return " If the new plan differs, train existing folds again with `autocrossdim train --restart`."
    return ""


def explain_kept(plan: Plan, candidate: Plan) -> list[str]:
    """Return what to say about a plan that is kept, one sentence each.

    Args:
        plan: The plan.
        candidate: What would be planned for the present cases.
    """
    sentences = []
    different = plan.differences(candidate, sorted(plan.configurations.keys() | candidate.configurations.keys()))
    if plan.decision.configuration != candidate.decision.configuration:
        different.append(f"decision ({candidate.decision.configuration})")
    if different:
        sentences.append(
            f"The plan is kept, so that trained folds remain usable. With --overwrite, it would differ in: "
            f"{', '.join(different)}."
        )
    else:
        sentences.append("The plan is kept. A new plan would be the same.")
    if any(channel.scheme == "ct" for channel in plan.normalization):
        sentences.append("CT intensities are still normalised with the statistics of the originally planned cases.")
    return sentences


def remove_stored(project: Project, removed: Iterable[str]) -> None:
    """Remove preprocessed cases that are no longer in the dataset from every configuration."""
    for name in project.plan.configurations:
        Store(project.workspace.preprocessed(name)).remove(removed)


def planned_contents(project: Project) -> Contents:
    """Return what gives the content hashes of a case's files, as they were when the dataset was planned."""
    cases = {case.name: case for case in project.dataset.training_cases()}
    sources = {case.name: case.source for case in project.fingerprint.cases}

    def of(name: str) -> frozenset[str]:
        return contents(sources.get(name, ()), len(cases[name].images), cases[name].annotated_labels)

    return of


@dataclass(frozen=True)
class OutgrownFold:
    """A trained fold whose cases have changed since then.

    Attributes:
        configuration: Name of its configuration.
        fold: Number of the fold, or "all".
        trained: On which cases, or versions of them, it was trained; None if on its present training cases.
        seen: Present validation cases that it was trained on, such as scans that were not labelled then.
        weights: Starting weights of its first training; None if these are the default.
        settings: Options of `train` for the settings with which it was trained.
    """

    configuration: str
    fold: Fold
    trained: str | None
    seen: tuple[str, ...]
    weights: str | None
    settings: tuple[str, ...] = ()

    @property
    def words(self) -> tuple[str, ...]:
        """Options with which `train` trains it on its present cases, without `--fold`."""
        if not self.seen:
            return ("--weights", "previous", *self.settings)
        return (*(() if self.weights is None else ("--weights", self.weights)), *self.settings, "--restart")

    @property
    def sentence(self) -> str:
        """The change in words."""
        subject = f"{self.configuration} fold {self.fold} was"
        if not self.seen:
            return f"{subject} {self.trained}."
        now = "is a validation case" if len(self.seen) == 1 else "are validation cases"
        return f"{subject} trained on {listed(self.seen)}, which {now} now, so it cannot continue from its weights."


def outgrown_folds(project: Project, *, read: "Callable[[Path], Checkpoint] | None" = None) -> list[OutgrownFold]:
    """Return the trained folds whose cases have changed since then.

    Args:
        project: The dataset with its present folds.
        read: Reads a checkpoint, of which the weights are not needed.
    """
    from autocrossdim.records.checkpoint import Checkpoint  # imports torch
    from autocrossdim.report.commands import setting_words

    read = read or Checkpoint.read
    found, of_case = [], planned_contents(project)
    for name, configuration in project.plan.configurations.items():
        for fold in (*range(len(project.splits)), ALL):
            latest, split = project.workspace.fold(name, fold).latest, project.split(fold)
            if not latest.exists():
                continue
            try:
                checkpoint = read(latest)
            except UserError as error:
                warn(str(error))
                continue
            trained = checkpoint.outgrown(split.train, of_case)
            # What a cascade was trained on includes the segmentations by its previous stage, which are not known here.
            is_cascade = configuration.previous_stage is not None
            if trained is None and not is_cascade and (corrected := checkpoint.corrected(split.train, of_case)):
                trained = f"trained on earlier versions of {listed(corrected)}"
            seen = checkpoint.trained_on.among(split.val, split.train, of_case, project.dataset.groups)
            if trained or seen:
                first = checkpoint.first_weights
                weights = None if first == configuration.default_weights else first
                settings = tuple(setting_words(checkpoint))
                found.append(OutgrownFold(name, fold, trained, tuple(seen), weights, settings))
    return found


def explain_outgrown(
    folds: Sequence[OutgrownFold], *, dataset: str | Path | int, work: str | Path | None = None
) -> list[str]:
    """Return what to say about outgrown folds: one sentence on each, then what to run.

    Args:
        folds: The folds.
        dataset: The dataset as the user named it, for the commands.
        work: Directory of all results as the user gave it.
    """
    again: list[str] = []
    onward: list[str] = []
    for name in dict.fromkeys(each.configuration for each in folds):
        for words in training_words([each for each in folds if each.configuration == name]):
            command = f"`{command_line('train', dataset, '--config', name, *words, work=work)}`"
            (again if "--restart" in words else onward).append(command)
    sentences = [each.sentence for each in folds]
    if again:
        sentences.append(f"To train from the start what cannot continue, run {' and '.join(again)}.")
    if onward:
        whose = "of the other folds" if again else "they have"
        sentences.append(f"To continue from the weights {whose}, run {' and '.join(onward)}.")
    return sentences


def training_words(folds: Sequence[OutgrownFold]) -> list[list[str]]:
    """Return the options with which `train` trains outgrown folds on their present cases, one list per command.

    Folds that start over come first, and the model of all cases last.

    Args:
        folds: The outgrown folds of one configuration.
    """
    alike: dict[tuple[bool, tuple[str, ...]], list[str]] = {}
    for each in sorted(folds, key=lambda each: (not each.seen, each.fold == ALL)):
        alike.setdefault((each.fold == ALL, each.words), []).extend(("--fold", str(each.fold)))
    # Without --fold, `train` would also come to the folds that need another command, and stop.
    is_one = sum(not is_all for is_all, _ in alike) == 1 and not any(each.seen for each in folds)
    return [[*([] if is_one and not is_all else named), *words] for (is_all, words), named in alike.items()]
