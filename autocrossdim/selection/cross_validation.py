"""Cross-validation of configurations and their ensembles: held-out predictions and summaries."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from autocrossdim.data.dataset import Case
from autocrossdim.evaluation.folder import Pair, evaluate_cases
from autocrossdim.evaluation.summary import merge, summarise
from autocrossdim.inference.model import Model
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.best import folder_name
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.sources import content_hash, file_versions
from autocrossdim.records.summary import CaseResult, Summary
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.selection.budget import Budget
from autocrossdim.selection.folds import NOT_TRAINED, CrossValidation, Unusable, budget_of, present_contents
from autocrossdim.selection.held_out import Names, predict_held_out, predicted_from, source_of
from autocrossdim.selection.stages import preprocessed, training_cases
from autocrossdim.system.console import track
from autocrossdim.system.device import choose_device
from autocrossdim.system.files import read_json, remove_directory, write_json
from autocrossdim.system.text import counted, listed


def complete_configurations(work: CrossValidation) -> tuple[dict[str, list[Budget]], list[str]]:
    """Return the budgets of configurations with all folds usable, cheapest first, and why others are left out."""
    complete, problems = {}, []
    by_cost = sorted(work.plan.configurations.values(), key=lambda each: each.cost.multiply_adds_per_case)
    for name in (configuration.name for configuration in by_cost):
        budgets, wrong = [], {}
        for fold in range(len(work.splits)):
            try:
                budgets.append(budget_of(work, name, fold))
            except Unusable as problem:
                wrong[fold] = str(problem)
        if not wrong:
            complete[name] = budgets
        elif not budgets and set(wrong.values()) == {NOT_TRAINED}:
            problems.append(f"{name} is left out: it is not trained.")
        else:
            found = "; ".join(
                f"fold {', '.join(str(fold) for fold, other in wrong.items() if other == problem)} is {problem}"
                for problem in dict.fromkeys(wrong.values())
            )
            # best.json records this sentence, and exported files contain it: it names no directory.
            problems.append(
                f"{name} is left out: {found}. Run `autocrossdim train` with --config {name} to complete it."
            )
    for name in list(complete):
        stage = work.plan.configuration(name).previous_stage
        if stage is not None and stage not in complete:
            del complete[name]
            problems.append(f"{name} is left out, because its previous stage, {stage}, is left out.")
    return complete, problems


def outgrown(work: CrossValidation, configurations: Sequence[str]) -> list[str]:
    """Return a sentence for each fold that was not trained on just its present training cases."""
    return [
        f"{name} fold {fold} was {text}."
        for name in configurations
        for fold, split in enumerate(work.splits)
        if (text := _trained(work, name, fold).outgrown(split.train, present_contents(work, name)))
    ]


def _trained(work: CrossValidation, name: str, fold: int) -> Checkpoint:
    return Checkpoint.read(work.workspace.fold(name, fold).latest)


def predict_candidates(work: CrossValidation, candidates: Sequence[Names], digests: Mapping[str, str]) -> list[str]:
    """Segment the held-out cases of every fold with every candidate; current predictions are kept.

    Returns:
        Sentences about the cases whose image or label was corrected since they were segmented, and about those that
        were added since the folds were validated, if there are any.
    """
    ending = work.plan.file_ending
    stores = {name: Store(work.workspace.preprocessed(name)) for names in candidates for name in names}
    sources = _sources(work, stores)
    prepared: set[str] = set()
    corrected: set[str] = set()
    added: set[str] = set()
    for fold, split in enumerate(work.splits):
        folders = {names: work.fold(names, fold) for names in candidates}
        for names, folder in folders.items():
            if len(names) > 1:
                _clear_if_outdated(folder, {name: digests[f"{name}/fold_{fold}"] for name in names})
        found = {
            (names, case): predicted_from(folder, case, ending)
            for names, folder in folders.items()
            for case in split.val
        }
        wanted = {
            (names, case): source_of(names, {name: sources[name][case] for name in names}) for names, case in found
        }
        todo = {names: folders[names] for (names, case), source in found.items() if source != wanted[names, case]}
        if not todo:
            continue
        corrected |= {key[1] for key, source in found.items() if source not in (None, wanted[key])}
        # The folds themselves were validated: what they lack came later.
        added |= {case for (names, case), source in found.items() if source is None and folders[names].summary.exists()}
        needed = sorted({name for names in todo for name in names})
        for name in needed:
            if name not in prepared:
                preprocessed(work, name)
                prepared.add(name)
        for folder in todo.values():
            folder.summary.unlink(missing_ok=True)
        device = choose_device(work.device)
        models = {name: Model.load([work.workspace.fold(name, fold).latest], device) for name in needed}
        for case in track(sorted(split.val), f"Segmenting held-out cases of fold {fold}", len(split.val)):
            predict_held_out(case, stores=stores, models=models, folders=todo)
    sentences = []
    if corrected:
        sentences.append(
            f"{counted(len(corrected), 'case')} changed since the folds were validated ({listed(sorted(corrected))}), "
            f"so {'it was' if len(corrected) == 1 else 'they were'} segmented and evaluated again. The folds were "
            "trained on the earlier versions; run `autocrossdim train` with --weights previous to continue them on the "
            "present ones, or with --restart to start over."
        )
    if added:
        sentences.append(
            f"{counted(len(added), 'case')} had no result yet ({listed(sorted(added))}) and "
            f"{'was' if len(added) == 1 else 'were'} segmented and evaluated now."
        )
    return sentences


def _sources(work: CrossValidation, stores: Mapping[str, Store]) -> dict[str, dict[str, str]]:
    """Return the digest of each case's files by configuration; a cascade has the previous stage's file as well."""
    cascades = [name for name in stores if work.plan.configuration(name).previous_stage is not None]
    others = {name: store for name, store in stores.items() if name not in cascades}
    plain = {case.name: _source(case, others) for case in work.dataset.training_cases()} if others else {}
    return dict.fromkeys(others, plain) | {
        name: {case.name: _source(case, {name: stores[name]}) for case in training_cases(work, name)}
        for name in cascades
    }


def _source(case: Case, stores: Mapping[str, Store]) -> str:
    """Return the digest of a case's files, from a store if that knows their present versions."""
    for store in stores.values():
        if store.is_current(case):
            return store.source_hash(case.name)
    return content_hash(file_versions(case.source_files), case.annotated_labels)


def _clear_if_outdated(folder: FoldFolder, digests: Mapping[str, str]) -> None:
    """Empty the folder of an ensemble's fold unless it was made from these checkpoints."""
    marker = folder.root / "made_from.json"
    if marker.exists() and read_json(marker) == digests:
        return
    remove_directory(folder.root)
    write_json(marker, dict(digests))


def summarise_candidate(work: CrossValidation, names: Names) -> Summary:
    """Return and write the summary of all folds of a candidate; folds without a summary are evaluated first."""
    ending = work.plan.file_ending
    cases = {case.name: case for case in work.dataset.training_cases()}
    references = {name: _existing(case.label) for name, case in cases.items()}
    folds = []
    for fold, split in enumerate(work.splits):
        folder = work.fold(names, fold)
        predictions = {case: folder.validation / f"{case}{ending}" for case in sorted(split.val)}
        evaluated = _evaluated(folder, ending)
        if evaluated.keys() != predictions.keys():  # not yet, or before cases were added or removed
            pairs = [
                Pair(prediction, references[case], work.dataset.groups.get(case), cases[case].annotated_labels)
                for case, prediction in predictions.items()
            ]
            results = evaluate_cases(pairs, work.plan.labels, processes=work.processes)
            summarise(results, work.plan.labels).write(folder.summary)
            evaluated = _evaluated(folder, ending)
        # Since the fold was evaluated, files may have been moved, and groups may have been added or corrected.
        current = [
            case.model_copy(
                update={
                    "reference_file": str(references[name]),
                    "prediction_file": str(predictions[name]),
                    "group": work.dataset.groups.get(name),
                }
            )
            for name, case in evaluated.items()
        ]
        folds.append(summarise(current, work.plan.labels))
    summary = merge(folds)
    summary.write(work.workspace.summary(folder_name(names)))
    return summary


def _evaluated(folder: FoldFolder, ending: str) -> dict[str, CaseResult]:
    """Return the results of a fold by the name of the case; none without a summary."""
    if not folder.summary.exists():
        return {}
    return {case.file.removesuffix(ending): case for case in Summary.read(folder.summary).metric_per_case}


def _existing(label: Path | None) -> Path:
    assert label is not None, "training cases have labels"
    return label
