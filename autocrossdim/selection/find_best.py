"""Comparison of all trained configurations and their pairs on the held-out cases of a cross-validation."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from autocrossdim.data.dataset import Dataset
from autocrossdim.data.splits import Split
from autocrossdim.evaluation.folder import Pair, evaluate_cases
from autocrossdim.evaluation.summary import merge, summarise
from autocrossdim.inference.model import Model
from autocrossdim.preprocessing.dataset import preprocess_dataset
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.best import Best, Contender, checkpoint_digests, contender_name, folder_name, plan_digest
from autocrossdim.records.calibration import Calibration, CaseScore
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan
from autocrossdim.records.summary import Summary, SummaryCalibration
from autocrossdim.records.workspace import FoldFolder, Workspace
from autocrossdim.selection.budget import Budget, differences, mean_minutes, mean_steps
from autocrossdim.selection.calibration import Evidence, calibrate, confidence_at, fit_case_score
from autocrossdim.selection.choose import choose
from autocrossdim.selection.held_out import Names, evidence_file, is_predicted, predict_held_out
from autocrossdim.selection.postprocessing import choose_postprocessing
from autocrossdim.system.console import say, track
from autocrossdim.system.device import choose_device
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json
from autocrossdim.system.text import listed


@dataclass(frozen=True)
class CrossValidation:
    """A dataset, its plan and its folds.

    Attributes:
        dataset: The raw dataset.
        workspace: Its workspace.
        plan: Its plan.
        splits: Its folds.
        processes: Number of cases evaluated in parallel.
        device: `auto`, `cpu` or `cuda`.
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

    def cases(self) -> list[tuple[int, str]]:
        """Return the fold and name of every held-out case."""
        return [(fold, case) for fold, split in enumerate(self.splits) for case in sorted(split.val)]


@dataclass(frozen=True)
class Candidate:
    """One configuration, or several averaged.

    Attributes:
        names: Configurations that are averaged.
        summary: Cross-validation summary.
        multiply_adds: Cost of predicting a case of the median shape with one fold.
        budgets: Training budgets of each configuration's folds.
    """

    names: Names
    summary: Summary
    multiply_adds: int
    budgets: Sequence[Sequence[Budget]]

    def contender(self) -> Contender:
        """Return the candidate as best.json records it."""
        low, high = self.summary.ends("Dice")
        hd95 = self.summary.foreground_mean.get("HD95", math.nan)
        return Contender(
            name=contender_name(self.names),
            configurations=self.names,
            multiply_adds=self.multiply_adds,
            dice=self.summary.foreground_mean["Dice"],
            dice_interval=None if math.isnan(low) else (low, high),
            hd95=None if math.isnan(hd95) else hd95,
            unit=self.summary.unit,
            steps_per_fold=_total([mean_steps(folds) for folds in self.budgets]),
            minutes_per_fold=_total([mean_minutes(folds) for folds in self.budgets]),
        )


def find_best(work: CrossValidation) -> Best:
    """Compare all configurations trained in every fold and all their pairs, choose one, and write best.json.

    The cheapest candidate whose Dice is within noise of the best is chosen, by the cost of prediction. Results of an
    earlier call with the same checkpoints are reused.

    Raises:
        UserError: No configuration is trained and validated in all folds. The message names the command to run.
    """
    workspace, plan = work.workspace, work.plan
    if not work.splits:
        raise UserError(f"{workspace.splits}: there are no folds, so models cannot be compared on held-out cases.")
    budgets, problems = _complete(work)
    for problem in problems:
        say(problem)
    if not budgets:
        raise UserError(
            f"{workspace.root / 'models'}: no configuration is trained and validated in all {len(work.splits)} folds "
            f"of {workspace.splits.name}. Run `autocrossdim train {work.dataset.path}` until it has finished."
        )
    every: list[Names] = [(name,) for name in budgets] + list(combinations(budgets, 2))
    digests = checkpoint_digests(workspace, list(budgets), range(len(work.splits)))
    _predict(work, every, digests)
    candidates = {contender_name(names): _candidate(work, names, budgets) for names in every}
    choice = choose(
        {name: each.summary for name, each in candidates.items()},
        {name: each.multiply_adds for name, each in candidates.items()},
    )
    chosen = candidates[choice.name]
    postprocessing = choose_postprocessing(chosen.summary, plan.labels, processes=work.processes)
    calibration, score = _calibrate(work, chosen)
    calibrated = {"calibration": SummaryCalibration(**calibration.model_dump(), case_score=score)}
    chosen.summary.model_copy(update=calibrated).write(workspace.summary(folder_name(chosen.names)))
    best = Best(
        dataset=plan.dataset,
        configurations=chosen.names,
        folds=tuple(range(len(work.splits))),
        postprocessing=postprocessing.steps,
        dice_postprocessed=postprocessing.summary.foreground_mean["Dice"],
        calibration=calibration,
        case_score=score,
        contenders=tuple(each.contender() for each in candidates.values()),
        reasons=(
            *problems,
            *differences(budgets),
            *choice.reasons,
            *postprocessing.reasons,
            calibration.sentence,
            score.sentence,
        ),
        plan_digest=plan_digest(plan, chosen.names),
        checkpoints={key: value for key, value in digests.items() if key.partition("/")[0] in chosen.names},
    )
    best.write(workspace.best)
    return best


def _complete(work: CrossValidation) -> tuple[dict[str, list[Budget]], list[str]]:
    """Return the budgets of configurations with all folds usable, cheapest first, and why others are left out."""
    complete, problems = {}, []
    by_cost = sorted(work.plan.configurations.values(), key=lambda each: each.cost.multiply_adds_per_case)
    for name in (configuration.name for configuration in by_cost):
        folds = [_usable(work, name, fold) for fold in range(len(work.splits))]
        budgets = [fold for fold in folds if isinstance(fold, Budget)]
        if len(budgets) == len(folds):
            complete[name] = budgets
        elif all(fold == "not trained" for fold in folds):
            problems.append(f"{name} is left out: it is not trained.")
        else:
            wrong = {index: fold for index, fold in enumerate(folds) if isinstance(fold, str)}
            found = "; ".join(
                f"fold {', '.join(str(fold) for fold, other in wrong.items() if other == problem)} is {problem}"
                for problem in dict.fromkeys(wrong.values())
            )
            command = f"autocrossdim train {work.dataset.name} --config {name}"
            problems.append(f"{name} is left out: {found}. Run `{command}` to complete it.")
    return complete, problems


def _usable(work: CrossValidation, name: str, fold: int) -> Budget | str:
    """Return the budget of a fold or, if it cannot be used, the reason in words that follow `fold 1 is`."""
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
    if differences := work.plan.differences(checkpoint.plan, [name]):
        return f"trained under another plan (different: {', '.join(differences)}; add --restart)"
    if sorted(checkpoint.split["val"]) != sorted(work.splits[fold].val):
        return "trained on other cases than splits.json lists now (add --restart)"
    if not folder.summary.exists():
        return "not validated"
    return budget


def _predict(work: CrossValidation, candidates: Sequence[Names], digests: Mapping[str, str]) -> None:
    """Segment the held-out cases of every fold with every candidate; existing predictions are kept."""
    ending = work.plan.file_ending
    stores: dict[str, Store] = {}
    for fold, split in enumerate(work.splits):
        folders = {names: work.fold(names, fold) for names in candidates}
        for names, folder in folders.items():
            if len(names) > 1:
                _clear_if_outdated(folder, {name: digests[f"{name}/fold_{fold}"] for name in names})
        todo = {
            names: folder
            for names, folder in folders.items()
            if not all(is_predicted(folder, case, ending) for case in split.val)
        }
        if not todo:
            continue
        needed = sorted({name for names in todo for name in names})
        for name in needed:
            if name not in stores:
                stores[name] = Store(work.workspace.preprocessed(name))
                preprocess_dataset(work.dataset, work.plan, work.plan.configuration(name), stores[name], work.processes)
        device = choose_device(work.device)
        models = {name: Model.load([work.workspace.fold(name, fold).latest], device) for name in needed}
        for case in track(sorted(split.val), f"Fold {fold}, held-out cases", len(split.val)):
            predict_held_out(case, stores=stores, models=models, folders=todo)


def _clear_if_outdated(folder: FoldFolder, digests: Mapping[str, str]) -> None:
    """Empty the folder of an ensemble's fold unless it was made from these checkpoints."""
    marker = folder.root / "made_from.json"
    if marker.exists() and read_json(marker) == digests:
        return
    shutil.rmtree(folder.root, ignore_errors=True)
    write_json(marker, dict(digests))


def _candidate(work: CrossValidation, names: Names, budgets: Mapping[str, Sequence[Budget]]) -> Candidate:
    return Candidate(
        names=names,
        summary=_summary(work, names),
        multiply_adds=sum(work.plan.configuration(name).cost.multiply_adds_per_case for name in names),
        budgets=[budgets[name] for name in names],
    )


def _summary(work: CrossValidation, names: Names) -> Summary:
    """Return and write the summary of all folds of a candidate; folds without a summary are evaluated first."""
    ending = work.plan.file_ending
    references = {case.name: _existing(case.label) for case in work.dataset.training_cases()}
    folds = []
    for fold, split in enumerate(work.splits):
        folder = work.fold(names, fold)
        predictions = {case: folder.validation / f"{case}{ending}" for case in sorted(split.val)}
        if not folder.summary.exists():
            pairs = [
                Pair(prediction, references[case], work.dataset.groups.get(case))
                for case, prediction in predictions.items()
            ]
            results = evaluate_cases(pairs, work.plan.labels, processes=work.processes)
            summarise(results, work.plan.labels).write(folder.summary)
        evaluated = {case.file.removesuffix(ending): case for case in Summary.read(folder.summary).metric_per_case}
        if evaluated.keys() != predictions.keys():
            raise UserError(
                f"{folder.summary}: evaluated on other cases than fold {fold} of {work.workspace.splits} holds out "
                f"({listed(sorted(evaluated.keys() ^ predictions.keys()))}). Delete it and run "
                f"`autocrossdim train {work.dataset.path}` to validate again."
            )
        # The work folder or the dataset may have been moved since the fold was evaluated.
        current = [
            case.model_copy(update={"reference_file": str(references[name]), "prediction_file": str(predictions[name])})
            for name, case in evaluated.items()
        ]
        folds.append(summarise(current, work.plan.labels))
    summary = merge(folds)
    summary.write(work.workspace.summary(folder_name(names)))
    return summary


def _calibrate(work: CrossValidation, chosen: Candidate) -> tuple[Calibration, CaseScore]:
    """Fit temperature and case score of the chosen candidate to its held-out cases."""
    evidence = {case: Evidence.read(evidence_file(work.fold(chosen.names, fold), case)) for fold, case in work.cases()}
    calibration = calibrate(list(evidence.values()))
    results = chosen.summary.metric_per_case
    names = [case.file.removesuffix(work.plan.file_ending) for case in results]
    score = fit_case_score(
        [confidence_at(evidence[name], calibration.temperature) for name in names],
        [case.dice for case in results],
        [case.cluster for case in results],
    )
    return calibration, score


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _existing(label: Path | None) -> Path:
    assert label is not None, "training cases have labels"
    return label
