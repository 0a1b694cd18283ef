"""The commands as functions: what `autocrossdim COMMAND` does, with the same words."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from autocrossdim.data.dataset import Dataset, find_dataset, load_dataset
from autocrossdim.data.images import ENDINGS, write_label
from autocrossdim.data.splits import Split, load_or_make_splits
from autocrossdim.data.verify import Report
from autocrossdim.data.verify import verify as verify_dataset
from autocrossdim.evaluation.folds import summarise_folds
from autocrossdim.evaluation.summary import Summary, evaluate_folder, labels_from
from autocrossdim.inference.inputs import find_inputs, part_of
from autocrossdim.jobs import command
from autocrossdim.jobs.local import run_together, slots, visible_gpus
from autocrossdim.jobs.slurm import Job, submit
from autocrossdim.models.source import find_checkpoints
from autocrossdim.preprocessing.dataset import preprocess_dataset
from autocrossdim.preprocessing.fingerprint import extract
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.best import Best
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.records.plan import Plan, PlanOptions
from autocrossdim.records.workspace import FoldFolder, Workspace, default_work
from autocrossdim.system import registry
from autocrossdim.system.console import is_first_process, say, track
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json, write_json, write_text
from autocrossdim.system.processes import default_processes, under_torchrun

ALL = "all"  # the fold that trains on every case


def verify(dataset: str | Path, processes: int | None = None) -> Report:
    """Check a dataset's integrity.

    Returns:
        Every fault and every warning.

    Raises:
        UserError: there is no such dataset.
    """
    return verify_dataset(find_dataset(dataset), processes or default_processes())


def plan(
    dataset: str | Path,
    work: Path | None = None,
    planner: str = "auto",
    options: PlanOptions | None = None,
    processes: int | None = None,
    overwrite: bool = False,
) -> tuple[Plan, Fingerprint]:
    """Check and measure a dataset and decide on a plan.

    Args:
        dataset: a path, or a name or number below `$AUTOCROSSDIM_RAW` or `$nnUNet_raw`.
        work: folder of all results (default: `$AUTOCROSSDIM_WORK`, else `./autocrossdim_work`).
        planner: name of an installed planner.
        options: what the user chose instead of the planner.
        processes: worker processes, each holding one case.
        overwrite: measure anew even where it was done.

    Returns:
        The plan, and the fingerprint it rests on.

    Raises:
        UserError: the dataset has faults, or nothing fits the memory budget; nothing is written then.
    """
    raw = load_dataset(find_dataset(dataset))
    space = Workspace.of(raw.name, work)
    processes = processes or default_processes()
    options = options or PlanOptions()
    plan_with = registry.find("planners", planner)
    if space.fingerprint.exists() and not overwrite:
        fingerprint = Fingerprint.read(space.fingerprint)
        known = {case.name for case in fingerprint.cases}
        if known != {case.name for case in raw.training_cases()}:
            raise UserError(f"{raw.path}: its cases changed since it was planned. Plan again with --overwrite.")
        if read_json(space.dataset_json) != raw.description:
            raise UserError(f"{raw.path / 'dataset.json'}: changed since it was planned. Plan again with --overwrite.")
    else:
        fingerprint, report = extract(raw, processes)
        for warning in report.warnings:
            say(f"warning: {warning}")
    made: Plan = plan_with.plan(raw, fingerprint, options)
    write_json(space.dataset_json, raw.description)
    fingerprint.write(space.fingerprint)
    if overwrite:
        space.splits.unlink(missing_ok=True)
    presence = {case.name: case.label_voxels.keys() for case in fingerprint.cases}
    _, folds = load_or_make_splits(raw, space.splits, presence)
    made.write(space.plan)
    say(folds)
    say(f"Decision: {made.decision.configuration}. The plan is {space.plan}.")
    return made, fingerprint


def plan_and_preprocess(
    dataset: str | Path,
    work: Path | None = None,
    planner: str = "auto",
    options: PlanOptions | None = None,
    processes: int | None = None,
    overwrite: bool = False,
) -> Plan:
    """Plan as `plan` does, and preprocess the dataset for the configuration decided on.

    Another configuration is preprocessed when it is first trained.
    """
    made, _ = plan(dataset, work, planner, options, processes, overwrite)
    for sentence in (*made.decision.reasons, *made.notes):
        say(sentence)
    preprocess(dataset, work, processes, overwrite)
    return made


def preprocess(
    dataset: str | Path, work: Path | None = None, processes: int | None = None, overwrite: bool = False
) -> None:
    """Preprocess a planned dataset for the configuration decided on; cases done under the same settings are kept."""
    raw = load_dataset(find_dataset(dataset))
    space = Workspace.of(raw.name, work)
    made = Plan.read(space.plan)
    name = made.decision.configuration
    if overwrite:
        shutil.rmtree(space.preprocessed(name), ignore_errors=True)
    _store(raw, made, space, name, processes or default_processes())


def train(
    dataset: str | Path,
    work: Path | None = None,
    config: str | None = None,
    fold: Sequence[int | str] = (),
    weights: str = "imagenet",
    device: str = "auto",
    restart: bool = False,
    settings: dict[str, Any] | None = None,
    devices: int = 1,
    parallel: int | None = None,
    slurm: Mapping[str, str] | None = None,
) -> None:
    """Train folds of a configuration, each resumed where it stopped or skipped when complete, and validate them.

    Args:
        dataset: as for `plan_and_preprocess`, which must have been run.
        work: folder of all results.
        config: configuration; what the plan chose if None.
        fold: numbers of folds, or "all" for one model trained on every case; all folds of the splits if empty.
        weights: `imagenet`, `noisy_student`, `random`, a full timm name, or a file.
        device: `auto`, `cpu` or `cuda`.
        restart: forget what these folds had learned.
        settings: hyper-parameters other than the defaults, by the names of `trainers.settings.Settings`.
        devices: how many train one fold together; under torchrun, as many as it has started.
        parallel: folds trained at a time, each in a process of its own; as many as there are GPUs for if None.
        slurm: submit one job a fold with these options of `sbatch`, and return.

    Raises:
        UserError: not planned yet, no such fold or configuration, weights that cannot be had, folds in processes of
            their own that failed, or jobs that cannot be submitted.
        Interrupted: SIGTERM or SIGUSR1 came; a checkpoint was written first.
    """
    raw = load_dataset(find_dataset(dataset))
    space = Workspace.of(raw.name, work)
    space.require_plan()
    made = Plan.read(space.plan)
    configuration = made.configuration(config)
    splits, _ = load_or_make_splits(raw, space.splits)
    chosen = _folds(fold, len(splits), space.splits)
    if is_first_process():
        store = _store(raw, made, space, configuration.name, default_processes())
    else:  # the others wait for it before they train
        store = Store(space.preprocessed(configuration.name))
    trainers = registry.find("trainers", configuration.name)
    trainer = trainers.create(made, configuration, store, raw.groups, weights, device, settings or {}, devices)
    folders = {number: space.fold(configuration.name, number) for number in chosen}
    commands = {
        number: command(
            "train",
            raw.path.resolve(),
            work=space.root.parent.resolve(),
            config=configuration.name,
            fold=number,
            weights=weights,
            device=device,
            devices=devices,
            set=settings,
        )
        for number in chosen
    }
    if slurm is not None:
        jobs = {
            f"{configuration.name} fold {number}": Job(words, _ask_for_restart(folders[number], restart))
            for number, words in commands.items()
        }
        submit(jobs, space.root / "slurm", slurm)
        return
    gpus = visible_gpus(device) if len(chosen) > 1 and not under_torchrun() else []
    at_a_time = 1 if under_torchrun() else min(parallel or len(gpus) // devices or 1, len(chosen))
    if at_a_time > 1:
        again = ["--restart"] if restart else []
        run_together(
            {f"fold {number}": [*words, *again] for number, words in commands.items()},
            slots(at_a_time, gpus, devices),
        )
    else:
        everything = tuple(sorted(case.name for case in raw.training_cases()))
        for number, folder in folders.items():
            split = Split(train=everything, val=()) if number == ALL else splits[int(number)]
            trainer.train(number, split, folder, restart)
    if is_first_process():
        summarise_folds(space, configuration.name, len(splits))


def _ask_for_restart(folder: FoldFolder, restart: bool) -> Path:
    """Return a mark that is there as long as the fold is still to forget what it had learned; that removes it, too.

    A job that is queued again thus goes on, although it was submitted to start afresh.
    """
    mark = folder.root / "restart"
    if restart:
        write_text(mark, "")
    else:
        mark.unlink(missing_ok=True)
    return mark


def _folds(asked: Sequence[int | str], count: int, splits: Path) -> list[int | str]:
    """The folds to train, checked against the splits there are."""
    folds: list[int | str] = []
    for fold in asked or range(count):
        if fold == ALL:
            folds.append(ALL)
        elif isinstance(fold, int) or fold.isdecimal():
            if count == 0:
                break
            if not 0 <= int(fold) < count:
                raise UserError(f"--fold {fold}: {splits} has folds 0 to {count - 1}, or 'all'.")
            folds.append(int(fold))
        else:
            raise UserError(f"--fold {fold}: a number or 'all'.")
    if not folds:
        raise UserError(f"{splits} has no folds (too few cases to hold any back): train with --fold all.")
    return folds


def _store(raw: Dataset, plan: Plan, space: Workspace, name: str, processes: int) -> Store:
    store = Store(space.preprocessed(name))
    preprocess_dataset(raw, plan, plan.configuration(name), store, processes)
    return store


def predict(
    model: str | Path,
    input: Path,
    output: Path,
    work: Path | None = None,
    fold: Sequence[int | str] = (),
    config: Sequence[str] = (),
    probabilities: bool = False,
    mirroring: bool = True,
    device: str = "auto",
    overwrite: bool = False,
    uncertainty: bool = False,
    postprocessing: bool = True,
    part: str = "0/1",
    slurm: Mapping[str, str] | None = None,
    jobs: int = 1,
) -> list[Path]:
    """Segment every case of a folder, or one file, with an ensemble of folds and configurations.

    Args:
        model: a dataset trained in `work`, a model folder (`.../models/omnia`), or an exported file.
        input: folder of `CASE_0000.ext` files, one such file, or the folder of a DICOM series.
        output: folder of the segmentations, each on its image's own grid.
        work: folder of all results.
        fold: folds to average; all trained ones if empty.
        config: configurations to average; what `best.json` or the plan names if empty.
        probabilities: also write `CASE.npz` with the probabilities (K, Z, Y, X), float16.
        mirroring: average over mirrored versions of the image.
        device: `auto`, `cpu` or `cuda`.
        overwrite: segment cases again whose result exists.
        uncertainty: also write entropy and disagreement maps below `uncertainty/`, and `uncertainty.csv` with the
            Dice to expect of every case, those to look at first on top.
        postprocessing: apply that of `best.json`, if it is about the same configurations.
        part: `I/N`: every Nth case from the Ith on, so that N machines do a folder together.
        slurm: submit jobs with these options of `sbatch`, and return.
        jobs: how many; each does a part.

    Returns:
        The segmentations' paths; none yet if jobs were submitted.

    Raises:
        UserError: no trained fold, no such input, an image the model cannot take, or jobs that cannot be submitted.
    """
    if slurm is not None:
        from autocrossdim.models.model_file import is_model_file

        if overwrite:
            raise UserError("--overwrite and --slurm: a job that is queued again would begin again. Choose a new -o.")
        if not input.exists():
            raise UserError(f"-i {input}: no such file or folder.")
        if not is_model_file(model):
            find_checkpoints(model, work, fold, config)  # here, a fault is seen
        words = {
            f"predict {k} of {jobs}": command(
                "predict",
                Path(model).resolve() if Path(model).exists() else model,
                input=input.resolve(),
                output=output.resolve(),
                work=(work or default_work()).resolve(),
                fold=list(fold),
                config=list(config),
                probabilities=probabilities,
                no_mirroring=not mirroring,
                device=device,
                uncertainty=uncertainty,
                no_postprocessing=not postprocessing,
                part=f"{k}/{jobs}",
            )
            for k in range(jobs)
        }
        submit({name: Job(of_one) for name, of_one in words.items()}, output / "slurm", slurm)
        return []
    from autocrossdim.inference.folder import segment_folder
    from autocrossdim.inference.predictor import Predictor

    predictor = Predictor.load(model, work, fold, config, device, mirroring, postprocessing)
    for note in predictor.notes:
        say(note)
    plan = predictor.plan
    cases = part_of(find_inputs(input, len(plan.channel_names), plan.file_ending), part)
    return segment_folder(predictor, cases, output, probabilities, uncertainty, overwrite)


def ensemble(folders: Sequence[Path], output: Path, dataset: str | Path) -> list[Path]:
    """Average the probabilities that `predict --probabilities` left in several folders, case by case.

    Args:
        folders: at least two, with `CASE.npz` and `CASE.ext` of the same cases.
        output: folder of the segmentations, each on its image's own grid.
        dataset: whose dataset.json names the labels and the format.

    Returns:
        The segmentations' paths.

    Raises:
        UserError: folders that hold other cases, or probabilities of other labels or grids.
    """
    from autocrossdim.inference.stored import average_stored, stored_cases

    if len(folders) < 2:
        raise UserError("An ensemble needs two folders or more.")
    if output.resolve() in {folder.resolve() for folder in folders}:
        raise UserError(f"-o {output}: holds what is to be averaged. Choose another folder.")
    raw = load_dataset(find_dataset(dataset))
    paths = []
    cases = stored_cases(folders)
    for case in track(cases, "Averaging", len(cases)):
        label, geometry = average_stored(folders, case, raw.labels, raw.file_ending)
        paths.append(output / f"{case}{raw.file_ending}")
        write_label(label, geometry, paths[-1])
    return paths


def find_best(
    dataset: str | Path, work: Path | None = None, device: str = "auto", processes: int | None = None
) -> Best:
    """Compare all configurations trained in every fold, and all pairs of them, on held-out cases; write best.json.

    The simplest candidate whose Dice is within noise of the best one's is chosen; then post-processing is tried on it
    and its probabilities are calibrated. `predict` follows best.json where no configuration is named.

    Args:
        dataset: as for `train`, which must have been run for all folds.
        work: folder of all results.
        device: `auto`, `cpu` or `cuda`.
        processes: cases compared at a time.

    Raises:
        UserError: no configuration is trained and validated in all folds.
    """
    from autocrossdim.selection.find_best import CrossValidation
    from autocrossdim.selection.find_best import find_best as choose_best

    raw = load_dataset(find_dataset(dataset))
    space = Workspace.of(raw.name, work)
    space.require_plan()
    splits, _ = load_or_make_splits(raw, space.splits)
    made = Plan.read(space.plan)
    return choose_best(CrossValidation(raw, space, made, splits, processes or default_processes(), device))


def report(dataset: str | Path, work: Path | None = None, output: Path | None = None) -> Path:
    """Write one page on a dataset, its plan and what is trained so far, and on how far results can be trusted.

    Args:
        dataset: as for `plan_and_preprocess`, which must have been run.
        work: folder of all results.
        output: of the page (default: `report.html` beside the plan).

    Returns:
        The page's path.

    Raises:
        UserError: not planned yet, or a file is missing or damaged.
    """
    from autocrossdim.report.page import write_report

    raw = load_dataset(find_dataset(dataset))
    space = Workspace.of(raw.name, work)
    space.require_plan()
    splits, _ = load_or_make_splits(raw, space.splits)
    output = output or space.report
    write_report(raw, space, splits, output)
    say(f"{output}: open it in a browser; everything it shows is inside.")
    return output


def export(
    dataset: str | Path,
    output: Path,
    work: Path | None = None,
    config: Sequence[str] = (),
    fold: Sequence[int | str] = (),
    onnx: Path | None = None,
) -> Path:
    """Write trained folds into one file that `predict` takes as it is, and on request as ONNX too.

    Args:
        dataset: a dataset trained in `work`, or a model folder.
        output: of the file, which ends in `.acd`.
        work: folder of all results.
        config: configurations to export; what `best.json` or the plan names if empty.
        fold: folds to export; all trained ones if empty.
        onnx: folder for one ONNX file a configuration and fold, each compared with PyTorch.

    Returns:
        The file's path.

    Raises:
        UserError: nothing trained is there, folds of different plans, or packages missing that ONNX needs.
    """
    from autocrossdim.models.onnx import require_packages, write_networks
    from autocrossdim.models.pack import pack

    if onnx is not None:
        require_packages()
    file = pack(dataset, output, work, fold, config)
    folds = ", ".join(f"{name} {fold}" for name, folds in file.folds.items() for fold in folds)
    say(f"{output}: {folds}; {output.stat().st_size / 1e6:.1f} MB. What it is and may be used for: its MODEL_CARD.md.")
    for network in write_networks(file, onnx) if onnx is not None else ():
        say(f"{network.path}: at most {network.difference:.1g} from PyTorch, where logits reach {network.largest:.2g}.")
    return output


def evaluate(
    predictions: Path,
    references: Path,
    dataset: str | Path | None = None,
    output: Path | None = None,
    processes: int | None = None,
) -> Summary:
    """Compare two folders of segmentations of the same names and write summary.json.

    Args:
        predictions: folder.
        references: folder.
        dataset: whose dataset.json names the labels; every value found is a label of its own if None.
        output: of the summary (default: `summary.json` beside the predictions).
        processes: cases compared at a time.

    Raises:
        UserError: files without a partner, on another grid, or with undeclared values.
    """
    processes = processes or default_processes()
    raw = load_dataset(find_dataset(dataset)) if dataset is not None else None
    ending = raw.file_ending if raw else _ending(references)
    labels = raw.labels if raw else labels_from(None, [references, predictions], ending, processes)
    output = output or predictions / "summary.json"
    return evaluate_folder(predictions, references, labels, ending, processes, output, raw.groups if raw else None)


def _ending(folder: Path) -> str:
    """The one image format in a folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder.")
    found = {ending for file in folder.iterdir() for ending in ENDINGS if file.name.lower().endswith(ending)}
    # "x.nii.gz" does not end with ".nii", so every file has one ending.
    if len(found) != 1:
        raise UserError(f"{folder}: holds {', '.join(sorted(found)) or 'no'} images; one format is needed.")
    return found.pop()
