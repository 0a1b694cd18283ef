"""What the ensemble that `find_best` chose says about the cases that a student learns from, and how the two compare.

A fold of the student learns only from the same fold of its teachers, which never saw its validation cases. The student
trained on all cases learns from all folds.
"""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np

from autocrossdim.data.dataset import Case
from autocrossdim.inference.inputs import existing_files
from autocrossdim.inference.pipeline import overlapped
from autocrossdim.inference.predictor import Predictor, Prepared
from autocrossdim.preprocessing.soft_labels import SoftLabels, write_soft_labels
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.best import Best, folder_name, plan_digest
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import DISTILLED, Configuration, Plan
from autocrossdim.records.student import HeldOut, Student, teachers_digest
from autocrossdim.records.summary import Summary
from autocrossdim.selection.choose import compare
from autocrossdim.selection.folds import CrossValidation, Unusable, budget_of
from autocrossdim.system.console import track
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import list_directory
from autocrossdim.system.text import listed, shown_path


def read_teachers(work: CrossValidation) -> Best:
    """Return the ensemble that `find_best` chose, all of whose folds can teach.

    Raises:
        UserError: There is none, it is outdated, or a fold was trained or validated on other cases than it has now.
    """
    path, command = work.workspace.best, work.command("find_best")
    if not path.exists():
        raise UserError(f"{path}: no such file, so there is no ensemble to learn from. Run `{command}` first.")
    best = Best.read(path)
    if changed := best.outdated(work.workspace):
        raise UserError(f"{path}: {changed} since it was written. Run `{command}` again.")
    for name in work.plan.with_stages(best.configurations):
        for fold in range(len(work.splits)):
            try:
                budget_of(work, name, fold)
            except Unusable as problem:
                raise UserError(
                    f"{name} cannot teach: its fold {fold} is {problem}. Run "
                    f"`{work.command('train', '--config', name)}`, and then `{command}`."
                ) from problem
    _require_results(work, best, command)
    return best


def _require_results(work: CrossValidation, best: Best, command: str) -> None:
    """Raise a UserError unless the teachers have results for just the present validation cases."""
    path = work.workspace.summary(folder_name(best.configurations))
    results = {case.file.removesuffix(work.plan.file_ending) for case in Summary.read(path).metric_per_case}
    if changed := sorted(results ^ {case for _, case in work.cases()}):
        trained = listed(work.plan.with_stages(best.configurations))
        raise UserError(
            f"{path}: the validation cases have changed since `find_best` ({listed(changed)}). Run "
            f"`{work.command('train', '--config', 'NAME')}` for {trained}, and then `{command}`."
        )


def student_of(plan: Plan, best: Best, name: str | None) -> Configuration:
    """Return the configuration of a student.

    Args:
        plan: The plan.
        best: The ensemble.
        name: Configuration whose network the student has; by default, that of the ensemble which the plan decided on,
            else the first of the ensemble.

    Raises:
        UserError: There is no such configuration, or it is the second stage of a cascade, which is not one network.
    """
    if name is None:
        name = plan.decision.configuration
        name = name if name in best.configurations else best.configurations[0]
        name = plan.configuration(name).previous_stage or name
    if plan.configuration(name).previous_stage is not None:
        raise UserError(f"--config {name}: needs a segmentation by another network. Choose one that does not.")
    return plan.configuration(name.removesuffix(DISTILLED) + DISTILLED)


def soft_labels_of(
    work: CrossValidation, best: Best, fold: int | str, cases: Sequence[tuple[Store, Case]], student: Configuration
) -> SoftLabels:
    """Return where the soft labels of the cases of a fold are; `label_softly` computes them.

    Args:
        work: The dataset, its plan and its folds.
        best: The ensemble.
        fold: Fold of the student; "all" learns from every fold of the ensemble.
        cases: The cases that the fold learns from, each with its store for the student's network.
        student: Configuration of the student.
    """
    teachers = teachers_digest(best, _folds(best, fold))
    root = work.workspace.preprocessed(student.name) / f"fold_{fold}"
    # The names of the files say what they were computed from, so that one that exists is current.
    made_from = _short(f"{teachers} {plan_digest(work.plan, [student.name.removesuffix(DISTILLED)])}")
    names = {case.name: f"{case.name}_{_short(store.source_hash(case.name))}_{made_from}" for store, case in cases}
    return SoftLabels({case: root / f"{name}.b2nd" for case, name in names.items()}, teachers)


def label_softly(
    work: CrossValidation,
    best: Best,
    fold: int | str,
    cases: Sequence[tuple[Store, Case]],
    student: Configuration,
    soft_labels: SoftLabels,
) -> None:
    """Compute those soft labels of a fold that are missing or outdated.

    Args:
        work: The dataset, its plan and its folds.
        best: The ensemble.
        fold: Fold of the student.
        cases: The cases that the fold learns from, each with its store for the student's network.
        student: Configuration of the student.
        soft_labels: Where the soft labels of these cases are.

    Raises:
        UserError: An image cannot be read.
    """
    files = soft_labels.files
    _remove_outdated(files)
    missing = [(store, case) for store, case in cases if not files[case.name].exists()]
    if not missing:
        return
    predictor = Predictor.load(work.workspace.root, fold=_folds(best, fold), device=work.device)

    def prepare(item: tuple[Store, Case]) -> Prepared:
        return predictor.prepare(existing_files(item[1]))

    def compute(item: tuple[Store, Case], prepared: Prepared) -> np.ndarray:
        probabilities = predictor.segment(prepared, probabilities=True).probabilities
        assert probabilities is not None
        return probabilities

    def write(item: tuple[Store, Case], probabilities: np.ndarray) -> None:
        store, case = item
        placement = store.record(case.name).placement
        write_soft_labels(files[case.name], probabilities, work.plan.labels, placement, student.patch_shape)

    done = overlapped(missing, lambda item: shown_path(item[1].name), prepare, compute, write)
    for _ in track(done, f"Segmenting cases with the teachers of fold {fold}", len(missing)):
        pass


def _folds(best: Best, fold: int | str) -> tuple[int, ...]:
    """Return the folds of the teachers of a fold."""
    return (fold,) if isinstance(fold, int) else best.folds


def _remove_outdated(files: Mapping[str, Path]) -> None:
    """Remove soft labels by other teachers or of earlier files; those of scans that are left out for now are kept."""
    present = {path.stem: path for path in files.values()}
    if not present:
        return
    root, made_from = next(iter(present.values())).parent, next(iter(present)).rpartition("_")[2]
    for path in list_directory(root) if root.is_dir() else ():
        version, _, known = path.stem.rpartition("_")
        case = version.rpartition("_")[0]
        if known != made_from or (case in files and path.stem not in present):
            path.unlink()


def compare_with_teachers(
    work: CrossValidation,
    best: Best,
    student: Configuration,
    *,
    trained: Iterable[int | str],
    unlabelled: Sequence[Collection[str]],
) -> Student:
    """Compare a student with its teachers on the held-out cases, and write student.json.

    Args:
        work: The dataset, its plan and its folds.
        best: The ensemble.
        student: Configuration of the student.
        trained: Trained folds, whose unlabelled scans are counted.
        unlabelled: Names of the unlabelled scans that each fold of the comparison has to have learned from.
    """
    checkpoints = [Checkpoint.read(work.workspace.fold(student.name, fold).latest) for fold in trained]
    scans = {name for each in checkpoints for name in each.split.get("unlabelled", ())}
    plan = work.plan
    ensemble = sum(
        each.cost.multiply_adds_per_case * 2 ** len(each.mirrored_in_prediction)
        for each in (plan.configuration(name) for name in plan.with_stages(best.configurations))
    )
    result = Student(
        name=student.name,
        teachers=best.configurations,
        teachers_digest=teachers_digest(best, best.folds),
        unlabelled=len(scans),
        saving=len(best.folds) * ensemble / student.cost.multiply_adds_per_case,
    )
    if all(_is_current(work, best, student, fold, names) for fold, names in enumerate(unlabelled)):
        own, others = (
            Summary.read(work.workspace.summary(name)) for name in (student.name, folder_name(best.configurations))
        )
        found = compare(own, others)
        held_out = HeldOut(
            n_cases=found.n_cases,
            dice=own.foreground_mean["Dice"],
            teachers_dice=others.foreground_mean["Dice"],
            difference=found.mean,
            interval=None if math.isnan(found.low) else (found.low, found.high),
        )
        result = result.model_copy(update={"held_out": held_out})
    result.write(work.workspace)
    return result


def _is_current(
    work: CrossValidation, best: Best, student: Configuration, fold: int, unlabelled: Collection[str]
) -> bool:
    """Return whether a fold of a student can be used, and learned from the present teachers and these scans."""
    try:
        budget_of(work, student.name, fold)
    except Unusable:
        return False
    known = Checkpoint.read(work.workspace.fold(student.name, fold).latest)
    scans = Store(work.workspace.unlabelled(student.name.removesuffix(DISTILLED)))
    same_scans = known.learned_from(unlabelled, scans.image_hash)
    return same_scans and known.provenance.get("teachers") == teachers_digest(best, (fold,))


def _short(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:16]
