"""`autocrossdim distil`: one network that learns from an ensemble and predicts as fast as a single fold."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

from autocrossdim.commands.arguments import (
    DatasetArgument,
    DeviceOption,
    EpochsOption,
    Fold,
    MaxTimeOption,
    ParallelOption,
    SetOption,
    SlurmOption,
    WorkOption,
    check_parallel,
    several,
    training_settings,
)
from autocrossdim.commands.fold_jobs import fold_commands, train_folds
from autocrossdim.commands.restart import starting_over
from autocrossdim.commands.signature import Option, command
from autocrossdim.commands.train import UNLABELLED, known_weights
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autocrossdim.commands.plugins import Unlabelled
    from autocrossdim.commands.project import Project
    from autocrossdim.data.dataset import Case, Dataset
    from autocrossdim.data.splits import Split
    from autocrossdim.preprocessing.store import Store
    from autocrossdim.records.plan import Configuration
    from autocrossdim.records.student import Student
    from autocrossdim.records.workspace import FoldFolder


@command()
def distil(
    dataset: DatasetArgument,
    *,
    work: WorkOption = None,
    config: Annotated[
        str | None,
        Option("Configuration whose network the student uses (default: that of the plan, if it is a teacher)."),
    ] = None,
    fold: Annotated[
        Fold | Sequence[Fold],
        Option("Fold number or 'all'; repeat for several (default: every fold, then all).", list[str]),
    ] = (),
    epochs: EpochsOption = None,
    max_time: MaxTimeOption = None,
    weights: Annotated[
        str | None,
        Option("Starting weights, as for train (default: those of started folds, else of its teacher)."),
    ] = None,
    device: DeviceOption = "auto",
    restart: Annotated[bool, Option("Discard existing checkpoints and start over.")] = False,
    set: SetOption = None,
    parallel: ParallelOption = None,
    slurm: SlurmOption = None,
) -> "Student | None":
    """Distil the ensemble that find_best chose into one network.

    The network, CONFIG_distilled, learns the ensemble's probabilities on the training cases and, if there are any, on
    the scans in imagesUn. Its folds are compared with those of the ensemble on held-out cases;
    `predict --config CONFIG_distilled` uses the network trained on all cases. Complete folds are skipped and
    interrupted ones are resumed. With --slurm, each fold is a job; when all are finished, the same command without
    --slurm writes the comparison.

    Args:
        dataset: Dataset directory, name or number; find_best must have been run.
        work: Directory of all results.
        config: Configuration whose network the student has; that of the plan if it is one of the teachers, else the
            first of the teachers.
        fold: Fold numbers, or "all" for the network that `predict` uses; every fold and then "all" if empty.
        epochs: Number of epochs.
        max_time: Training time per fold, in seconds or as text such as `30m`.
        weights: Starting weights, as for `train`, except `previous`. If None, those from which the student's folds were
            started; else the encoder weights from which all folds of the same network were started; else the default.
        device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.
        restart: Discard existing checkpoints and start over.
        set: Further training settings, by the names of `trainers.settings.Settings`. `unlabelled=off` leaves
            out unlabelled scans.
        parallel: Folds trained at a time, each in a process of its own; as many as there are GPUs if None.
        slurm: Options of `sbatch`; one job per fold is submitted, and the call returns.

    Returns:
        The student and, once all of its folds are trained, its comparison with the ensemble; also in student.json.
        None if jobs were submitted.

    Raises:
        UserError: There is no ensemble or it is outdated, a fold or configuration does not exist, the weights are
            unavailable, a checkpoint belongs to other teachers, a fold failed, or the jobs cannot be submitted.
        Interrupted: SIGTERM or SIGUSR1 arrived; a checkpoint was written first.
    """
    from autocrossdim.commands.growth import open_unchanged
    from autocrossdim.commands.plugins import FoldTask, Unlabelled, find_trainer
    from autocrossdim.commands.project import ALL
    from autocrossdim.evaluation.folds import summarise_folds
    from autocrossdim.records.plan import DISTILLED
    from autocrossdim.selection.teachers import (
        compare_with_teachers,
        label_softly,
        read_teachers,
        soft_labels_of,
        student_of,
    )

    check_parallel(parallel, slurm)
    if weights == "previous":
        raise UserError(
            "--weights previous: not available for a distilled network. Choose other weights, such as imagenet."
        )
    project = open_unchanged(dataset, work=work)
    plan = project.plan
    validation = project.cross_validation(device=device)
    best = read_teachers(validation)
    student = student_of(plan, best, config)
    network = student.name.removesuffix(DISTILLED)
    folds = project.folds(several(fold) or (*range(len(project.splits)), ALL))
    settings = training_settings(set, epochs=epochs, max_time=max_time)
    trainer = find_trainer(student.trainer)
    scans_used = {UNLABELLED: settings.pop(UNLABELLED, 1)}
    for given in (settings, scans_used):
        trainer.check_settings(given)
    store = project.store(network)
    scans = project.dataset.unlabelled_cases() if float(scans_used[UNLABELLED]) > 0 else []
    unlabelled_store = project.unlabelled_store(network) if scans else None
    folders = {number: project.workspace.fold(student.name, number) for number in folds}
    restarted = starting_over(folders, student.name, restart)
    weights = weights or _default_weights(project, student, folders, restarted)
    tasks = []
    for number in folds:
        split, unlabelled = project.split(number), None
        if unlabelled_store is not None:
            unlabelled = Unlabelled(unlabelled_store, project.unlabelled(number))
        cases = _cases(project.dataset, store, split, unlabelled)
        soft_labels = soft_labels_of(validation, best, number, cases, student)
        task = FoldTask(
            plan=plan,
            configuration=student,
            store=store,
            groups=project.dataset.groups,
            fold=number,
            split=split,
            folder=folders[number],
            weights=weights,
            device=device,
            settings=settings,
            restart=number in restarted,
            unlabelled=unlabelled,
            soft_labels=soft_labels,
            prepare=partial(label_softly, validation, best, number, cases, student, soft_labels),
        )
        tasks.append(task)
    options = {"config": network, "weights": weights, "device": device, "set": settings | scans_used}
    root = project.workspace.root
    commands = fold_commands("distil", project.dataset.path, root, dict.fromkeys(folds, options))
    if not train_folds(trainer, tasks, commands, root, parallel=parallel, slurm=slurm):
        return None
    summarise_folds(project.workspace, student.name, project.splits)
    wanted = [project.unlabelled(number) if scans else () for number in range(len(project.splits))]
    return compare_with_teachers(validation, best, student, trained=folds, unlabelled=wanted)


def _default_weights(
    project: "Project",
    student: "Configuration",
    folders: "Mapping[Fold, FoldFolder]",
    restarted: Collection[Fold],
) -> str:
    """Return the weights from which the student's folds were started, else those of the teacher with its network.

    A trained model is not inherited: it may lack the fold of all cases.
    """
    from autocrossdim.models.source import is_model
    from autocrossdim.records.plan import DISTILLED
    from autocrossdim.system.console import say

    started = {fold: folder for fold, folder in folders.items() if folder.latest.exists() and fold not in restarted}
    if known := known_weights(started, ()):
        return known
    network = student.name.removesuffix(DISTILLED)
    inherited = known_weights({fold: project.workspace.fold(network, fold) for fold in project.folds(())}, ())
    if inherited is None or inherited == student.default_weights or is_model(inherited):
        return student.default_weights
    say(f"Starting weights: {inherited}, as for {network}.")
    return inherited


def _cases(
    dataset: "Dataset", store: "Store", split: "Split", unlabelled: "Unlabelled | None"
) -> "list[tuple[Store, Case]]":
    """Return the training cases and unlabelled scans that a fold learns from, each with its store."""
    cases = [(store, case) for case in dataset.training_cases() if case.name in split.train]
    if unlabelled is not None:
        cases += [(unlabelled.store, case) for case in dataset.unlabelled_cases() if case.name in unlabelled.names]
    return cases


def present(
    student: "Student | None", *, dataset: str, work: Any, config: str | None, **options: Any
) -> "Iterator[RenderableType]":
    """Yield what the command line prints: the comparison with the ensemble, and the next command.

    A student that is much worse than the ensemble is not recommended. Without the network that was trained on all
    cases, `predict` would average the folds, which is as slow as the ensemble; the remaining folds are then trained
    with the same options.
    """
    from autocrossdim.commands.next_step import next_step
    from autocrossdim.commands.project import ALL, Project
    from autocrossdim.jobs import option_words
    from autocrossdim.selection.choose import LARGEST_LOSS
    from autocrossdim.system.console import is_relayed

    if is_relayed():
        return
    if student is None:
        yield "When all jobs are finished, this command without --slurm writes the comparison with the ensemble."
        return
    yield student.sentence
    if student.held_out is not None and student.held_out.difference < -LARGEST_LOSS:
        yield (
            f"Its mean Dice is more than {LARGEST_LOSS} below that of its teachers, the limit of find_best for cheaper "
            f"models. Keep using the ensemble, unless speed matters more (predict --config {student.name}). "
            "Longer training, with --restart and more --epochs, may help."
        )
        yield next_step("predict", dataset, "-i", "IMAGES", "-o", "SEGMENTED", work=work)
        return
    if Project.open(dataset, work=work).workspace.fold(student.name, ALL).latest.exists():
        yield next_step("predict", dataset, "-i", "IMAGES", "-o", "SEGMENTED", "--config", student.name, work=work)
        return
    same = {name: options[name] for name in ("epochs", "max_time", "weights", "set")}
    device = None if options["device"] == "auto" else options["device"]
    yield next_step("distil", dataset, *option_words(config=config, **same, device=device), work=work)
