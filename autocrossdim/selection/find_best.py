"""Comparison of all trained configurations and their pairs on the held-out cases of a cross-validation."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from autocrossdim.records.best import Best, Contender, checkpoint_digests, contender_name, folder_name, plan_digest
from autocrossdim.records.calibration import Calibration, CaseScore
from autocrossdim.records.summary import Summary, SummaryCalibration
from autocrossdim.selection.budget import Budget, differences, mean_minutes, mean_steps
from autocrossdim.selection.calibration import Evidence, calibrate, confidence_at, fit_case_score
from autocrossdim.selection.choose import choose
from autocrossdim.selection.cross_validation import (
    complete_configurations,
    outgrown,
    predict_candidates,
    summarise_candidate,
)
from autocrossdim.selection.folds import CrossValidation
from autocrossdim.selection.held_out import Names, evidence_file
from autocrossdim.selection.likeness import NOT_COMPARED, find_likeness
from autocrossdim.selection.postprocessing import choose_postprocessing
from autocrossdim.system.console import say
from autocrossdim.system.errors import UserError


@dataclass(frozen=True)
class Candidate:
    """One configuration, or several averaged.

    Attributes:
        names: Configurations that are averaged.
        summary: Cross-validation summary.
        multiply_adds: Cost of predicting a case of the median shape with one fold.
        budgets: Training budgets of the folds of each configuration, previous stages of cascades included.
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

    The cheapest candidate that is about as good as the best is chosen, see `choose`, by the cost of prediction. Results
    of an earlier call with the same checkpoints are reused.

    Raises:
        UserError: No configuration is trained and validated in all folds. The message names the command to run.
    """
    workspace, plan = work.workspace, work.plan
    if not work.splits:
        raise UserError(f"{workspace.splits}: there are no folds, so models cannot be compared on held-out cases.")
    budgets, problems = complete_configurations(work)
    for problem in problems:
        say(problem)
    if not budgets:
        raise UserError(
            f"{workspace.root / 'models'}: no configuration is trained and validated in all {len(work.splits)} folds "
            f"of {workspace.splits.name}. Run `{work.command('train')}` until it has finished."
        )
    every: list[Names] = [(name,) for name in budgets] + list(combinations(budgets, 2))
    digests = checkpoint_digests(workspace, list(budgets), range(len(work.splits)))
    # The segmentations by previous stages are part of the input of cascades.
    cascades = {name for name in budgets if plan.configuration(name).previous_stage is not None}
    single = [names for names in every if cascades.isdisjoint(names)]
    changed = predict_candidates(work, single, digests)
    if cascades:
        changed += predict_candidates(work, [names for names in every if names not in single], digests)
    candidates = {contender_name(names): _candidate(work, names, budgets) for names in every}
    choice = choose(
        {name: each.summary for name, each in candidates.items()},
        {name: each.multiply_adds for name, each in candidates.items()},
    )
    chosen = candidates[choice.name]
    stages = plan.with_stages(chosen.names)
    postprocessing = choose_postprocessing(chosen.summary, plan.labels, processes=work.processes)
    calibration, score = _calibrate(work, chosen)
    found = find_likeness(work, chosen.names, digests)
    likeness = None if found is None else found[0]
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
        likeness=likeness,
        contenders=tuple(each.contender() for each in candidates.values()),
        scope=chosen.summary.scope,
        reasons=(
            *problems,
            *dict.fromkeys(changed),
            *outgrown(work, list(budgets)),
            *choice.reasons,
            *postprocessing.reasons,
            calibration.sentence,
            score.sentence,
            NOT_COMPARED if likeness is None else likeness.sentence,
        ),
        budgets=tuple(differences(budgets)),
        plan_digest=plan_digest(plan, chosen.names),
        checkpoints={key: value for key, value in digests.items() if key.partition("/")[0] in stages},
    )
    familiarity = workspace.familiarity(folder_name(chosen.names))
    familiarity.unlink(missing_ok=True)
    if found is not None:
        found[1].write(familiarity)
    best.write(workspace.best)
    return best


def _candidate(work: CrossValidation, names: Names, budgets: Mapping[str, Sequence[Budget]]) -> Candidate:
    needed = work.plan.with_stages(names)
    return Candidate(
        names=names,
        summary=summarise_candidate(work, names),
        multiply_adds=sum(work.plan.configuration(name).cost.multiply_adds_per_case for name in needed),
        budgets=[budgets[name] for name in needed],
    )


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
