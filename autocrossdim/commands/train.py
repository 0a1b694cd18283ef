"""`autocrossdim train`: cross-validate a configuration, one fold after another, side by side or as cluster jobs."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from autocrossdim.commands.arguments import (
    DatasetArgument,
    DeviceOption,
    DevicesOption,
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
from autocrossdim.system.errors import UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from autocrossdim.commands.project import Project
    from autocrossdim.preprocessing.store import Store
    from autocrossdim.records.summary import Summary
    from autocrossdim.records.workspace import FoldFolder

UNLABELLED = "unlabelled"  # setting that asks a trainer to learn from unlabelled scans


@command(renamed={"settings": "set", "max_seconds": "max_time"})
def train(
    dataset: DatasetArgument,
    *,
    work: WorkOption = None,
    config: Annotated[str | None, Option("Configuration to train (default: the decision of the plan).")] = None,
    fold: Annotated[
        Fold | Sequence[Fold],
        Option("Fold number or 'all'; repeat for several (default: every fold).", list[str]),
    ] = (),
    epochs: EpochsOption = None,
    max_time: MaxTimeOption = None,
    weights: Annotated[
        str | None,
        Option(
            "Starting weights: imagenet, noisy_student, random, a full timm name, a file, omnia (the trained Omnia-Net "
            "of this dataset), previous (the fold's own, after cases were added), a trained model's directory, an "
            "exported file, or hf://OWNER/NAME (default: those of started folds; else imagenet, or random for unet)."
        ),
    ] = None,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    restart: Annotated[bool, Option("Discard existing checkpoints and start over.")] = False,
    set: SetOption = None,
    parallel: ParallelOption = None,
    slurm: SlurmOption = None,
) -> "Summary | None":
    """Train folds of a configuration and segment their validation cases.

    Complete folds are skipped and interrupted ones are resumed. With --slurm, each fold is a job.

    Args:
        dataset: Dataset directory, name or number; it must have been planned.
        work: Directory of all results.
        config: Configuration to train; the decision of the plan if None.
        fold: Fold numbers, or "all" for one model trained on every case; every fold if empty.
        epochs: Number of epochs.
        max_time: Training time per fold, in seconds or as text such as `30m`.
        weights: Starting weights: `imagenet`, `noisy_student`, `random`, a full timm name, a file, a trained model, or
            `previous`: the weights that each fold has, to continue after cases were added to the dataset. If None,
            those from which all of the folds were started; else `imagenet`, or `random` for a U-Net, which has no
            pretrained encoder. If folds were continued with `previous`, the weights that they had started from before.
        device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.
        devices: Number of devices that train one fold together; under torchrun, the processes it started.
        restart: Discard existing checkpoints and start over.
        set: Further training settings, by the names of `trainers.settings.Settings`.
        parallel: Folds trained at a time, each in a process of its own; as many as there are GPUs if None.
        slurm: Options of `sbatch`; one job per fold is submitted, and the call returns.

    Returns:
        Validation results of all folds trained so far; None if there are none or jobs were submitted.

    Raises:
        UserError: The dataset was not planned, or dataset.json changed since then; a fold or configuration does not
            exist, the previous stage of a cascade is not trained in all folds, the weights are unavailable, a fold
            failed, or the jobs cannot be submitted.
        Interrupted: SIGTERM or SIGUSR1 arrived; a checkpoint was written first.
    """
    from autocrossdim.commands.growth import warn_of_new_cases
    from autocrossdim.commands.plugins import FoldTask, Unlabelled, find_trainer
    from autocrossdim.commands.project import Project
    from autocrossdim.evaluation.folds import summarise_folds
    from autocrossdim.preprocessing.store import Store
    from autocrossdim.system.console import is_first_process

    check_parallel(parallel, slurm)
    project = Project.open(dataset, work=work)
    configuration = project.plan.configuration(config)
    if configuration.is_distilled:
        raise UserError(f"--config {configuration.name}: a distilled network. Train it with `autocrossdim distil`.")
    folds = project.folds(several(fold))
    settings = training_settings(set, epochs=epochs, max_time=max_time)
    trainer = find_trainer(configuration.trainer)
    trainer.check_settings(settings)
    workspace, name = project.workspace, configuration.name
    warn_of_new_cases(project)
    # Other processes of the same training wait for the first one to preprocess.
    store = project.store(name) if is_first_process() else Store(workspace.preprocessed(name))
    scans = _unlabelled_store(project, name, settings)
    folders = {number: workspace.fold(name, number) for number in folds}
    restarted = starting_over(folders, name, restart)
    weights = weights or known_weights(folders, restarted) or configuration.default_weights
    starts = _starting_weights(weights, folders, restarted)
    tasks = [
        FoldTask(
            plan=project.plan,
            configuration=configuration,
            store=store,
            groups=project.dataset.groups,
            fold=number,
            split=project.split(number),
            folder=folders[number],
            weights=starts[number],
            device=device,
            devices=devices,
            settings=settings,
            restart=number in restarted,
            unlabelled=None if scans is None else Unlabelled(scans, project.unlabelled(number)),
        )
        for number in folders
    ]
    options = {"config": name, "device": device, "devices": devices, "set": settings}
    each = {number: {**options, "weights": start} for number, start in starts.items()}
    commands = fold_commands("train", project.dataset.path, workspace.root, each)
    if not train_folds(trainer, tasks, commands, workspace.root, parallel=parallel, slurm=slurm):
        return None
    return summarise_folds(workspace, name, project.splits) if is_first_process() else None


def known_weights(folders: "Mapping[Fold, FoldFolder]", restarted: Collection[Fold]) -> str | None:
    """Return the weights from which the folds were started, so that the command without --weights resumes them.

    None if a fold is yet to be started, unless --weights previous has continued another one: starting weights are then
    requested, not guessed.
    """
    from autocrossdim.records.checkpoint import Checkpoint

    first: list[str | None] = []
    for number, folder in folders.items():
        found = next((path for path in (folder.latest, folder.slices.latest) if path.exists()), None)
        if number in restarted or found is None:
            first.append(None)
            continue
        with suppress(UserError):  # the trainer reports a damaged checkpoint when it is the turn of the fold
            checkpoint = Checkpoint.read(found)
            if checkpoint.complete and checkpoint.is_continuation and checkpoint.first_weights:
                return checkpoint.first_weights
            first.append(None if checkpoint.is_continuation else checkpoint.first_weights)
    return first[0] if first and len(set(first)) == 1 else None


def _starting_weights(
    weights: str, folders: "Mapping[Fold, FoldFolder]", restarted: Collection[Fold]
) -> dict[Fold, str]:
    """Return the starting weights of each fold.

    Of a model on the hub without a revision, all folds that are started use the newest one.
    """
    from autocrossdim.models.hub import fetch, is_on_hub

    started = [number for number, folder in folders.items() if number in restarted or not folder.latest.exists()]
    if not started or not is_on_hub(weights) or "@" in weights:
        return dict.fromkeys(folders, weights)
    return dict.fromkeys(folders, weights) | dict.fromkeys(started, fetch(weights).name)


def _unlabelled_store(project: "Project", configuration: str, settings: Mapping[str, Any]) -> "Store | None":
    """Return the preprocessed unlabelled scans if the setting `unlabelled` asks for them; else say how to use them."""
    from autocrossdim.preprocessing.store import Store
    from autocrossdim.system.console import is_first_process, say
    from autocrossdim.system.text import counted

    scans, asked = len(project.dataset.unlabelled_cases()), float(settings.get(UNLABELLED) or 0) > 0
    if asked and (stage := project.plan.configuration(configuration).previous_stage):
        raise UserError(
            f"--set {UNLABELLED} does not apply to {configuration}: {stage} has not segmented the unlabelled scans. "
            f"Train {stage} with it instead."
        )
    if not asked:
        if scans:
            say(f"{counted(scans, 'unlabelled scan')} in imagesUn: not used. Add --set {UNLABELLED}=1 to use them.")
        return None
    if not scans:
        folder = project.dataset.path / "imagesUn"
        raise UserError(f"{folder}: no images, but --set {UNLABELLED} asks for unlabelled scans. Add some.")
    if is_first_process():
        return project.unlabelled_store(configuration)
    return Store(project.workspace.unlabelled(configuration))


def present(
    summary: "Summary | None", *, dataset: str, work: Any, config: str | None, slurm: str | None, **options: Any
) -> "Iterator[RenderableType]":
    """Yield what the command line prints: the results of all folds so far, where they are, and the next command.

    The other folds are trained with the same options: different ones would be refused.
    """
    from autocrossdim.commands.next_step import next_step
    from autocrossdim.commands.project import Project
    from autocrossdim.jobs import option_words
    from autocrossdim.report.terminal import summary_text
    from autocrossdim.system.console import is_first_process, is_relayed

    if slurm is not None or is_relayed() or not is_first_process():
        return
    project = Project.open(dataset, work=work)
    name = project.plan.configuration(config).name
    if summary is not None:
        yield summary_text(summary)
    yield f"Models and results: {project.workspace.model(name)}"
    if summary is None:
        yield next_step("predict", dataset, "-i", "IMAGES", "-o", "SEGMENTED", work=work)
    elif all(project.workspace.fold(name, fold).summary.exists() for fold in range(len(project.splits))):
        yield next_step("find_best", dataset, work=work)
    else:
        same = {name: options[name] for name in ("epochs", "max_time", "weights", "set")}
        device = None if options["device"] == "auto" else options["device"]
        devices = None if options["devices"] == 1 else options["devices"]
        words = option_words(config=config, **same, device=device, devices=devices)
        yield next_step("train", dataset, *words, work=work)
