"""What the ensemble that `find_best` chose says about the cases that a student learns from, and how the two compare.

A fold of the student learns only from the same fold of its teachers, which never saw its validation cases. The student
of all cases learns from all folds.
"""

import math
from collections.abc import Sequence
from hashlib import sha256

import numpy as np

from autocrossdim.data.dataset import Case
from autocrossdim.inference.inputs import existing_files
from autocrossdim.inference.pipeline import overlapped
from autocrossdim.inference.predictor import Predictor, Prepared
from autocrossdim.preprocessing.soft_labels import SoftLabels, write_soft_labels
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.best import Best, checkpoint_digests, folder_name, plan_digest
from autocrossdim.records.plan import DISTILLED, Configuration, Plan
from autocrossdim.records.student import HeldOut, Student
from autocrossdim.records.summary import Summary
from autocrossdim.selection.choose import compare
from autocrossdim.selection.folds import CrossValidation, usable
from autocrossdim.system.console import track
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import list_directory
from autocrossdim.system.text import shown_path


def read_teachers(work: CrossValidation) -> Best:
    """Return the ensemble that `find_best` chose, of which every fold can teach.

    Raises:
        UserError: There is none, it is outdated, or a fold was trained on other cases than it has now.
    """
    path, command = work.workspace.best, f"autocrossdim find_best {work.dataset.path}"
    if not path.exists():
        raise UserError(f"{path}: no such file, so there is no ensemble to learn from. Run `{command}` first.")
    best = Best.read(path)
    if changed := best.outdated(work.workspace):
        raise UserError(f"{path}: {changed} since it was written. Run `{command}` again.")
    for name in work.plan.with_stages(best.configurations):
        for fold in range(len(work.splits)):
            if isinstance(problem := usable(work, name, fold), str):
                raise UserError(
                    f"{name} cannot teach: its fold {fold} is {problem}. Run `autocrossdim train {work.dataset.path} "
                    f"--config {name}`, and then `{command}`."
                )
    return best


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


def label_softly(
    work: CrossValidation, best: Best, fold: int | str, cases: Sequence[tuple[Store, Case]], student: Configuration
) -> SoftLabels:
    """Return the soft labels of the cases of a fold; those that are missing or outdated are computed.

    Args:
        work: The dataset, its plan and its folds.
        best: The ensemble.
        fold: Fold of the student; "all" learns from every fold of the ensemble.
        cases: The cases that the fold learns from, each with its store for the student's network.
        student: Configuration of the student.

    Raises:
        UserError: An image cannot be read.
    """
    folds = (fold,) if isinstance(fold, int) else best.folds
    names = work.plan.with_stages(best.configurations)
    temperature = best.calibration.temperature
    networks = checkpoint_digests(work.workspace, names, folds)
    teachers = sha256(repr([networks, best.configurations, temperature]).encode()).hexdigest()
    root = work.workspace.preprocessed(student.name) / f"fold_{fold}"
    # The names of the files say what they were computed from, so that one that exists is current.
    made_from = f"{teachers} {plan_digest(work.plan, [student.name.removesuffix(DISTILLED)])}"
    files = {case.name: root / _file_name(case.name, made_from, store) for store, case in cases}
    for path in list_directory(root) if root.is_dir() else ():
        if path not in files.values():
            path.unlink()
    missing = [(store, case) for store, case in cases if not files[case.name].exists()]
    if not missing:
        return SoftLabels(files, teachers)
    predictor = Predictor.load(work.workspace.root, fold=folds, device=work.device)

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
    for _ in track(done, f"Teachers of fold {fold} segment cases", len(missing)):
        pass
    return SoftLabels(files, teachers)


def compare_with_teachers(work: CrossValidation, best: Best, student: Configuration, *, unlabelled: int) -> Student:
    """Compare a student with its teachers on the held-out cases, and write student.json.

    Args:
        work: The dataset, its plan and its folds.
        best: The ensemble.
        student: Configuration of the student.
        unlabelled: Number of unlabelled scans that it learned from.
    """
    plan = work.plan
    ensemble = sum(
        each.cost.multiply_adds_per_case * 2 ** len(each.mirrored_in_prediction)
        for each in (plan.configuration(name) for name in plan.with_stages(best.configurations))
    )
    result = Student(
        name=student.name,
        teachers=best.configurations,
        unlabelled=unlabelled,
        saving=len(best.folds) * ensemble / student.cost.multiply_adds_per_case,
    )
    if all(not isinstance(usable(work, student.name, fold), str) for fold in range(len(work.splits))):
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


def _file_name(case: str, made_from: str, store: Store) -> str:
    digest = sha256(f"{made_from} {store.source_hash(case)}".encode()).hexdigest()
    return f"{case}_{digest[:16]}.b2nd"
