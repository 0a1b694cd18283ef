"""The command line: words in, one call, words out. Nothing here imports torch before a command runs."""

import io
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from autocrossdim.system.errors import Interrupted, UserError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Segment medical images with few annotated scans: plan, train, predict, and see how far to trust it.",
)

DatasetArgument = Annotated[
    str,
    typer.Argument(metavar="DATASET", help="Folder, or a name or number below $AUTOCROSSDIM_RAW or $nnUNet_raw."),
]
WorkOption = Annotated[
    Path | None,
    typer.Option(help="Folder of all results (default: $AUTOCROSSDIM_WORK, else ./autocrossdim_work)."),
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
ProcessesOption = Annotated[
    int | None,
    typer.Option(min=1, help="Worker processes, each holding one case (default: one a core, at most 8)."),
]
SlurmOption = Annotated[
    str | None,
    typer.Option(
        metavar="OPTIONS",
        help="Submit SLURM jobs, with options of sbatch such as partition=gpu,time=12:00:00,gres=gpu:1.",
    ),
]
WeightsOption = Annotated[
    str,
    typer.Option(
        help="Starting weights: imagenet, noisy_student, random, a full timm name, a file, omnia (this dataset's "
        "trained Omnia-Net), a trained model's folder, or an exported file."
    ),
]


@app.command()
def verify(dataset: DatasetArgument, processes: ProcessesOption = None) -> None:
    """Check a dataset: every fault in one list."""
    from autocrossdim import api

    report = api.verify(dataset, processes)
    for warning in report.warnings:
        typer.echo(f"warning: {warning}")
    if report.faults:
        raise UserError(f"{len(report.faults)} fault(s) found.\n" + "\n".join(report.faults))
    typer.echo("No faults.")


@app.command("plan_and_preprocess", help="Look at a dataset, decide between 2D and 3D, say why, and preprocess it.")
@app.command("plan", help="As plan_and_preprocess, without preprocessing; shows the plan.")
def plan_and_preprocess(
    context: typer.Context,
    dataset: DatasetArgument,
    work: WorkOption = None,
    planner: Annotated[str, typer.Option(help="auto, omnia, dx, ds, or one installed beside them.")] = "auto",
    memory: Annotated[
        float | None, typer.Option(min=0, max=1e5, help="GB that training may take (default: the GPU's, else 8).")
    ] = None,
    encoder: Annotated[
        str | None, typer.Option(help="timm architecture of the encoder (default: efficientnet_b0).")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=1, max=1e5, help="Anisotropy from which on slices are preferred.")
    ] = 3.0,
    patch_size: Annotated[
        str | None, typer.Option(help="Voxels an axis, coarsest first, such as 48,64,48; two are in-plane.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, max=4096, help="Patches a step.")] = None,
    network: Annotated[Literal["default", "paper"], typer.Option(help="paper: the networks as published.")] = "default",
    inflation: Annotated[
        Literal["center", "average", "replicate", "acs"], typer.Option(help="How 2D weights become 3D ones.")
    ] = "center",
    slices: Annotated[int, typer.Option(help="Neighbouring slices a 2D network sees as channels: 1 or 3.")] = 1,
    deep_supervision: Annotated[
        bool, typer.Option("--deep-supervision", help="The loss also looks at the decoder's coarser levels.")
    ] = False,
    precision: Annotated[
        Literal["auto", "16", "32"], typer.Option(help="Bits of the convolutions to plan for (auto: 16 on a GPU).")
    ] = "auto",
    trial: Annotated[bool, typer.Option(help="Run a few real steps to measure time and memory.")] = True,
    show: Annotated[bool, typer.Option("--show", help="Show data, decision and candidates.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON, for programs.")] = False,
    processes: ProcessesOption = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do again what was done.")] = False,
) -> None:
    """Plan and, unless called as `plan`, preprocess."""
    from autocrossdim import api
    from autocrossdim.records.plan import PlanOptions

    if slices not in (1, 3):
        raise UserError(f"--slices {slices}: 1 or 3.")
    options = PlanOptions(
        memory=memory,
        encoder=encoder or "efficientnet_b0",
        threshold=threshold,
        patch_size=_numbers(patch_size, "--patch-size"),
        batch_size=batch_size,
        network=network,
        inflation=inflation,
        slices=3 if slices == 3 else 1,
        deep_supervision=deep_supervision,
        precision=precision,
        trial=trial,
    )
    made, fingerprint = api.plan(dataset, work, planner, options, processes, overwrite)
    if as_json:
        typer.echo(made.model_dump_json(indent=2))
    elif show or context.info_name == "plan":
        from rich.console import Console

        from autocrossdim.report.terminal import plan_text

        Console().print(plan_text(made, fingerprint), markup=False)
    else:
        for sentence in (*made.decision.reasons, *made.notes):
            typer.echo(sentence)
    if context.info_name != "plan":
        api.preprocess(dataset, work, processes, overwrite)


@app.command()
def train(
    dataset: DatasetArgument,
    work: WorkOption = None,
    config: Annotated[
        str | None,
        typer.Option(help="Configuration of the plan (default: what it decided on)."),
    ] = None,
    fold: Annotated[
        list[str] | None,
        typer.Option(help="Number of a fold, several times for several; or 'all' (default: every fold)."),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(min=1, help="Epochs (default: 100)."),
    ] = None,
    max_time: Annotated[
        str | None,
        typer.Option(help="Training time a fold, such as 90s, 30m, 2h; the schedule ends with it."),
    ] = None,
    weights: WeightsOption = "imagenet",
    device: DeviceOption = "auto",
    devices: Annotated[int, typer.Option(min=1, help="GPUs (or CPU processes) that train one fold together.")] = 1,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what these folds had learned.")] = False,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Any other hyper-parameter, such as learning_rate=3e-4."),
    ] = None,
    parallel: Annotated[
        int | None,
        typer.Option(min=1, help="Folds at a time, in processes of their own (default: as many as there are GPUs)."),
    ] = None,
    slurm: SlurmOption = None,
) -> None:
    """Train folds of a configuration; each goes on where it stopped. With --slurm, each is a job."""
    from autocrossdim import api

    if parallel is not None and slurm is not None:
        raise UserError("--parallel and --slurm: one of them; SLURM decides how many jobs run at a time.")

    settings = _assignments(change or [])
    if epochs is not None:
        settings["epochs"] = epochs
    if max_time is not None:
        settings["max_seconds"] = _seconds(max_time)
    api.train(
        dataset,
        work,
        config,
        fold or (),
        weights,
        device,
        restart,
        settings,
        devices,
        parallel,
        _sbatch_options(slurm) if slurm is not None else None,
    )


@app.command()
def predict(
    model: Annotated[str, typer.Argument(help="A dataset trained in --work, a model folder, or an exported file.")],
    input: Annotated[Path, typer.Option("-i", "--input", help="Folder of images, one file, or a DICOM folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the segmentations.")],
    work: WorkOption = None,
    fold: Annotated[
        list[str] | None,
        typer.Option(help="Fold to average, several times for several (default: all trained)."),
    ] = None,
    config: Annotated[
        list[str] | None,
        typer.Option(help="Configuration to average, several times for several."),
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Also write CASE.npz.")] = False,
    mirroring: Annotated[bool, typer.Option(help="Average over mirrored images.")] = True,
    device: DeviceOption = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Do finished cases again.")] = False,
    uncertainty: Annotated[
        bool,
        typer.Option("--uncertainty", help="Also write entropy and disagreement maps, and the cases to look at first."),
    ] = False,
    postprocessing: Annotated[bool, typer.Option(help="Apply what find_best found to help.")] = True,
    part: Annotated[
        str, typer.Option(metavar="I/N", help="Only every Nth case from the Ith on (0/4 to 3/4: four machines).")
    ] = "0/1",
    slurm: SlurmOption = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="How many --slurm submits; they share the images.")] = None,
) -> None:
    """Segment images with the ensemble of all trained folds."""
    from autocrossdim import api

    if jobs is not None and slurm is None:
        raise UserError("--jobs: how many --slurm submits, which is missing.")
    if part != "0/1" and slurm is not None:
        raise UserError("--part and --slurm: one of them; --jobs says in how many parts the jobs divide the images.")
    api.predict(
        model,
        input,
        output,
        work,
        fold or (),
        config or (),
        probabilities,
        mirroring,
        device,
        overwrite,
        uncertainty,
        postprocessing,
        part,
        _sbatch_options(slurm) if slurm is not None else None,
        jobs or 1,
    )


@app.command()
def ensemble(
    folders: Annotated[list[Path], typer.Argument(help="Folders that `predict --probabilities` wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the segmentations.")],
    dataset: Annotated[str, typer.Option(help="Whose dataset.json names the labels.")],
) -> None:
    """Average stored probabilities of several models, trained anywhere, into segmentations."""
    from autocrossdim import api

    api.ensemble(folders, output, dataset)


@app.command("find_best")
def find_best(
    dataset: DatasetArgument, work: WorkOption = None, device: DeviceOption = "auto", processes: ProcessesOption = None
) -> None:
    """Choose among all trained configurations and pairs by held-out cases; predict follows."""
    from rich.console import Console

    from autocrossdim import api
    from autocrossdim.report.terminal import best_table

    best = api.find_best(dataset, work, device, processes)
    Console().print(best_table(best))
    for reason in best.reasons:
        typer.echo(reason)


@app.command()
def report(
    dataset: DatasetArgument,
    work: WorkOption = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="The page (default: report.html beside the plan).")
    ] = None,
) -> None:
    """Write one page: data, decision, held-out results case by case, and how far they can be trusted."""
    from autocrossdim import api

    api.report(dataset, work, output)


@app.command()
def export(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="A dataset trained in --work, or a model folder.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file, NAME.acd.")],
    work: WorkOption = None,
    config: Annotated[
        list[str] | None,
        typer.Option(help="Configuration to export, several times for several (default: what predict would use)."),
    ] = None,
    fold: Annotated[
        list[str] | None,
        typer.Option(help="Fold to export, several times for several (default: all trained)."),
    ] = None,
    onnx: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Also write each network as ONNX, compared with PyTorch.")
    ] = None,
) -> None:
    """Pack trained folds into one safe file to hand on; `predict FILE` uses it as it is."""
    from autocrossdim import api

    api.export(dataset, output, work, config or (), fold or (), onnx)


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Argument(help="Folder of segmentations.")],
    references: Annotated[Path, typer.Argument(help="Folder of the true ones, same names.")],
    dataset: Annotated[
        str | None,
        typer.Option(help="Whose dataset.json names the labels."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Summary (default: summary.json beside the predictions)."),
    ] = None,
    processes: ProcessesOption = None,
) -> None:
    """Compare segmentations with true ones: Dice, HD95, ASSD, NSD a label and case."""
    from rich.console import Console

    from autocrossdim import api
    from autocrossdim.report.terminal import summary_table

    Console().print(summary_table(api.evaluate(predictions, references, dataset, output, processes)))


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder to work in.")] = Path("autocrossdim_demo"),
) -> None:
    """Do the whole job on two small datasets made here: plan, train two folds, predict, evaluate."""
    from autocrossdim.commands.demo import run

    run(output)


@app.command()
def doctor() -> None:
    """Tell versions, devices, memory, and whether pretrained weights can be fetched."""
    from autocrossdim.commands.doctor import examine

    for line in examine():
        typer.echo(line)


def _assignments(texts: list[str]) -> dict[str, object]:
    """Return NAME=VALUE pairs; a value is read as JSON where it is JSON (numbers, true), else as a word."""
    settings: dict[str, object] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set {text}: NAME=VALUE is needed, such as learning_rate=3e-4.")
        try:
            settings[name] = json.loads(value)
        except json.JSONDecodeError:
            settings[name] = value
    return settings


def _sbatch_options(text: str) -> dict[str, str]:
    """Return KEY=VALUE,KEY=VALUE as a mapping; a value may hold commas."""
    options = {}
    for part in re.split(r",(?=[A-Za-z][\w-]*=)", text):
        key, _, value = part.partition("=")
        if not (key and value):
            raise UserError(f"--slurm {text}: KEY=VALUE,... is needed, such as partition=gpu,time=12:00:00,gres=gpu:1.")
        options[key.strip()] = value.strip()
    return options


def _numbers(text: str | None, option: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    if not re.fullmatch(r"[1-9]\d{0,4}(,[1-9]\d{0,4}){1,2}", text):
        raise UserError(f"{option} {text}: two or three numbers up to 99999 with commas, such as 48,64,48.")
    return tuple(int(part) for part in text.split(","))


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    if match is None or float(match[1]) == 0:
        raise UserError(f"--max-time {text}: a number with s, m, h or d, such as 90s, 30m or 2h.")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def main() -> NoReturn:
    """Run the command line; a user's mistake is one clear line on stderr and exit code 2."""
    # Threads that spin while they wait make a step 2-4x slower as soon as anything else runs on these cores, and
    # 10 % faster at most when nothing does (measured: DX-Net on two cores). Read when torch loads its OpenMP.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Tables hold signs that an ASCII terminal or log has not; they are replaced there rather than fail.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        sys.exit(app(standalone_mode=False))
    except typer.Abort:
        sys.stderr.write("Stopped. Type the same command again to go on.\n")
        sys.exit(130)
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(2)
    except Interrupted as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(128 + signal.SIGTERM)
    except Exception as error:
        # Unknown options and the like; typer's classes of errors have moved between its versions.
        if not hasattr(error, "format_message"):
            raise
        if len(sys.argv) > 1:
            sys.stderr.write(f"error: {error.format_message()} See `autocrossdim --help`.\n")
        sys.exit(2)
