"""Which trained configurations to use: all of them and all pairs, compared on held-out cases of a cross-validation."""

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

from autocrossdim.data.dataset import Dataset
from autocrossdim.data.splits import Split
from autocrossdim.evaluation.summary import (
    CaseResult,
    Summary,
    case_groups,
    case_results,
    evaluate_cases,
    merge,
    summarise,
)
from autocrossdim.inference.model import Model
from autocrossdim.preprocessing.dataset import preprocess_dataset
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.best import Best, Contender, checkpoint_digests, contender_name, folder_name, plan_digest
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan
from autocrossdim.records.workspace import FoldFolder, Workspace
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
        raw: the dataset.
        space: its workspace.
        plan: its plan.
        splits: its folds.
        processes: cases compared at a time.
        device: `auto`, `cpu` or `cuda`.
    """

    raw: Dataset
    space: Workspace
    plan: Plan
    splits: Sequence[Split]
    processes: int
    device: str

    def fold(self, names: Names, fold: int) -> FoldFolder:
        """Where a fold of a candidate lies: an ensemble's beside the configurations'."""
        return self.space.fold(folder_name(names), fold)

    def cases(self) -> list[tuple[int, str]]:
        """Every held-out case and its fold."""
        return [(fold, case) for fold, split in enumerate(self.splits) for case in sorted(split.val)]


def find_best(work: CrossValidation) -> Best:
    """Compare everything that is trained in all folds, choose, and write best.json.

    The simplest candidate within noise of the best one is chosen, by what prediction costs. What an earlier call did
    with the same checkpoints is not done again.

    Raises:
        UserError: no configuration is trained and validated in all folds; the message names the command.
    """
    space, plan = work.space, work.plan
    if not work.splits:
        raise UserError(f"{space.splits}: no folds, so there is no cross-validation to choose by.")
    complete, problems = _complete(work)
    for problem in problems:
        say(problem)
    if not complete:
        raise UserError(
            f"{space.root / 'models'}: no configuration is trained and validated in all {len(work.splits)} folds of "
            f"{space.splits.name}. Run `autocrossdim train {work.raw.path}` to its end first."
        )
    candidates: list[Names] = [(name,) for name in complete] + list(combinations(complete, 2))
    digests = checkpoint_digests(space, complete, range(len(work.splits)))
    _predict(work, candidates, digests)
    summaries = {contender_name(names): _summary(work, names) for names in candidates}
    costs = {
        contender_name(names): sum(plan.configuration(name).cost.multiply_adds_per_case for name in names)
        for names in candidates
    }
    choice = choose(summaries, costs)
    chosen = next(names for names in candidates if contender_name(names) == choice.name)
    summary = summaries[choice.name]
    postprocessing = choose_postprocessing(summary, plan.labels, work.processes)
    evidence = _evidence(work, chosen)
    calibration = calibrate(list(evidence.values()))
    results = case_results(summary)
    names = [case.file.removesuffix(work.plan.file_ending) for case in results]
    score = fit_case_score(
        [confidence_at(evidence[name], calibration.temperature) for name in names],
        [case.dice for case in results],
        case_groups(results),
    )
    calibrated = {**summary, "calibration": {**calibration.model_dump(), "case_score": score.model_dump()}}
    write_json(space.model(folder_name(chosen)) / "summary.json", calibrated)
    best = Best(
        dataset=plan.dataset,
        configurations=chosen,
        folds=tuple(range(len(work.splits))),
        postprocessing=postprocessing.steps,
        dice_postprocessed=postprocessing.summary["foreground_mean"]["Dice"],
        calibration=calibration,
        case_score=score,
        contenders=tuple(_contender(names, summaries, costs) for names in candidates),
        reasons=(*problems, *choice.reasons, *postprocessing.reasons, calibration.sentence, score.sentence),
        plan_digest=plan_digest(plan, chosen),
        checkpoints={key: value for key, value in digests.items() if key.partition("/")[0] in chosen},
    )
    best.write(space.best)
    return best


def _complete(work: CrossValidation) -> tuple[list[str], list[str]]:
    """Return the configurations of which every fold can be used, simplest first, and why others are left out."""
    complete, problems = [], []
    by_cost = sorted(work.plan.configurations.values(), key=lambda each: each.cost.multiply_adds_per_case)
    for configuration in by_cost:
        name = configuration.name
        found = {fold: _problem(work, name, fold) for fold in range(len(work.splits))}
        wrong = {fold: problem for fold, problem in found.items() if problem is not None}
        if not wrong:
            complete.append(name)
        elif set(wrong.values()) == {"not trained"} and len(wrong) == len(work.splits):
            problems.append(f"{name} is left out: it was not trained.")
        else:
            folds = "; ".join(
                f"fold {', '.join(str(fold) for fold, other in wrong.items() if other == problem)} is {problem}"
                for problem in dict.fromkeys(wrong.values())
            )
            command = f"autocrossdim train {work.raw.name} --config {name}"
            problems.append(f"{name} is left out: {folds}. `{command}` does what is missing.")
    return complete, problems


def _problem(work: CrossValidation, name: str, fold: int) -> str | None:
    """Why a fold cannot be used, in words that follow `fold 1 is`."""
    folder = work.space.fold(name, fold)
    if not folder.latest.exists():
        return "not trained"
    try:
        checkpoint = Checkpoint.read(folder.latest)
    except UserError:
        return "damaged or of another version (--restart)"
    if not checkpoint.complete:
        return "not trained to its end"
    theirs = checkpoint.plan.configurations.get(name)
    ours = work.plan.configuration(name)
    if theirs is None or not theirs.trains_like(ours) or checkpoint.plan.labels != work.plan.labels:
        return "trained under another plan (--restart)"
    if sorted(checkpoint.split["val"]) != sorted(work.splits[fold].val):
        return "trained on other cases than it has now (--restart)"
    if not (folder.validation / "summary.json").exists():
        return "not validated"
    return None


def _predict(work: CrossValidation, candidates: Sequence[Names], digests: Mapping[str, str]) -> None:
    """Segment the held-out cases of every fold with every candidate, where that was not done yet."""
    ending = work.plan.file_ending
    stores: dict[str, Store] = {}
    for fold, split in enumerate(work.splits):
        folders = {names: work.fold(names, fold) for names in candidates}
        for names, folder in folders.items():
            if len(names) > 1:
                _keep_if_made_from(folder, {name: digests[f"{name}/fold_{fold}"] for name in names})
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
                stores[name] = Store(work.space.preprocessed(name))
                preprocess_dataset(work.raw, work.plan, work.plan.configuration(name), stores[name], work.processes)
        device = choose_device(work.device)
        models = {name: Model.load([work.space.fold(name, fold).latest], device) for name in needed}
        for case in track(sorted(split.val), f"Fold {fold}, held-out cases", len(split.val)):
            predict_held_out(case, stores, models, todo)


def _keep_if_made_from(folder: FoldFolder, digests: Mapping[str, str]) -> None:
    """Empty the folder of an ensemble's fold unless it was made from these checkpoints."""
    marker = folder.root / "made_from.json"
    if marker.exists() and read_json(marker) == digests:
        return
    shutil.rmtree(folder.root, ignore_errors=True)
    write_json(marker, dict(digests))


def _summary(work: CrossValidation, names: Names) -> Summary:
    """Return (and write) the summary of all folds of a candidate, evaluating what was not evaluated."""
    ending = work.plan.file_ending
    references = {case.name: case.label for case in work.raw.training_cases()}
    folds = []
    for fold, split in enumerate(work.splits):
        validation = work.fold(names, fold).validation
        file = validation / "summary.json"
        if not file.exists():
            triples = [
                (validation / f"{case}{ending}", _there(references[case]), work.raw.groups.get(case))
                for case in sorted(split.val)
            ]
            write_json(file, summarise(evaluate_cases(triples, work.plan.labels, work.processes), work.plan.labels))
        known = {case.file.removesuffix(ending): case for case in case_results(read_json(file))}
        if set(known) != set(split.val):
            raise UserError(
                f"{file}: of other cases than fold {fold} of {work.space.splits} holds out "
                f"({listed(sorted(set(known) ^ set(split.val)))}). Delete it and validate again with "
                f"`autocrossdim train {work.raw.path}`."
            )
        # Paths as they are now: the work folder may have been moved since.
        folds.append(
            summarise(
                [
                    CaseResult(
                        str(_there(references[name])), str(validation / f"{name}{ending}"), case.metrics, case.group
                    )
                    for name, case in known.items()
                ],
                work.plan.labels,
            )
        )
    summary = merge(folds)
    write_json(work.space.model(folder_name(names)) / "summary.json", summary)
    return summary


def _evidence(work: CrossValidation, names: Names) -> dict[str, Evidence]:
    return {case: Evidence.read(evidence_file(work.fold(names, fold), case)) for fold, case in work.cases()}


def _contender(names: Names, summaries: Mapping[str, Summary], costs: Mapping[str, int]) -> Contender:
    name = contender_name(names)
    summary = summaries[name]
    low, high = summary["interval"]["foreground_mean"]["Dice"]
    hd95 = summary["foreground_mean"].get("HD95", math.nan)
    return Contender(
        name=name,
        configurations=names,
        multiply_adds=costs[name],
        dice=summary["foreground_mean"]["Dice"],
        dice_interval=None if math.isnan(low) else (low, high),
        hd95=None if math.isnan(hd95) else hd95,
    )


def _there(label: Path | None) -> Path:
    assert label is not None, "training cases have labels"
    return label
