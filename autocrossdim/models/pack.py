"""From the folds of a work folder to one file: weights, plan, what is known of them, and a model card."""

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import safetensors.torch
from pydantic import BaseModel

from autocrossdim.models import about, card
from autocrossdim.models.archive import write_archive
from autocrossdim.models.hub import is_on_hub
from autocrossdim.models.model_file import (
    ABOUT,
    BEST,
    CARD,
    PLAN,
    SUFFIX,
    ModelFile,
    belongs,
    weights_name,
)
from autocrossdim.models.source import open_model, read_codes, with_stages
from autocrossdim.records.best import Best
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan
from autocrossdim.records.same_plan import SamePlan
from autocrossdim.records.summary import Summary
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.system.console import say
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import check_output


def pack(
    model: str | Path | int,
    output: Path,
    *,
    work: str | Path | None = None,
    fold: Sequence[int | str] = (),
    config: Sequence[str] = (),
) -> ModelFile:
    """Write trained folds into one file; exporting the same folds again gives a byte-identical file.

    Args:
        model: Dataset trained in `work`, directory of its results, or model directory.
        output: File to write; its name ends in `.acd`.
        work: Directory of all results.
        fold: Folds to pack; all trained folds if empty.
        config: Configurations to pack; those that `best.json`, else the plan, names if empty.

    Returns:
        The file, read and checked.

    Raises:
        UserError: Nothing is trained, a fold is incomplete or belongs to another plan, or the name ends otherwise.
    """
    check_output(output)
    if output.suffix != SUFFIX:
        suggested = output.parent / f"{output.stem}{SUFFIX}"
        raise UserError(f"-o {output}: the name of the file must end in {SUFFIX}. Use {suggested}, for example.")
    source = None if is_on_hub(model) else open_model(model, work=work)
    if source is None or isinstance(source, ModelFile):
        raise UserError(f"{model}: is already exported. Give the dataset or the model directory to export.")
    checkpoints = with_stages(source, fold=fold, config=config)
    best, notes = source.best_for(fold=fold, config=config)
    for note in notes:
        say(note)
    program = version("autocrossdim")
    write_archive(output, _members(checkpoints, best, program, output.name), program)
    return ModelFile.read(output)


def _members(
    checkpoints: Iterable[tuple[Path, Checkpoint, bool]], best: Best | None, program: str, name: str
) -> Iterator[tuple[str, bytes]]:
    """Yield the members, one fold in memory at a time."""
    together = SamePlan()
    plan: Plan | None = None
    first: Path | None = None
    trained: dict[str, about.Trained] = {}
    cases: set[str] = set()
    for path, checkpoint, stage_only in checkpoints:
        first = first or path
        together.add(path, checkpoint)
        plan = _with_configuration(plan, checkpoint)
        configuration, fold = checkpoint.configuration, f"fold_{checkpoint.fold}"
        scores = _scores(FoldFolder(path.parent).model_summary)
        described = trained.setdefault(
            configuration, about.Trained(folds={}, cross_validation=scores, stage_only=stage_only)
        )
        if fold in described.folds:
            raise UserError(f"{path}: another checkpoint is fold {checkpoint.fold} of {configuration} as well.")
        described.folds[fold] = _fold(checkpoint)
        cases.update(checkpoint.split["train"], checkpoint.split["val"])
        yield weights_name(configuration, checkpoint.fold), _safetensors(checkpoint, path)
    assert plan is not None
    assert first is not None
    workspace = FoldFolder(first.parent).workspace
    data = about.data(workspace.fingerprint, sorted(cases))
    content = about.About(data=data, configurations=trained, codes=read_codes(workspace))
    yield PLAN, _json(plan)
    if best is not None:
        if not belongs(best, plan):
            raise UserError(
                "best.json was written for another plan than that of these folds. Run `autocrossdim find_best` again."
            )
        yield BEST, _json(best)
    yield ABOUT, _json(content)
    yield CARD, card.write(plan, content, program, name, best).encode()


def _with_configuration(plan: Plan | None, checkpoint: Checkpoint) -> Plan:
    """Return the plan of the file with the configuration of a checkpoint added; a first plan has no other."""
    configuration = checkpoint.plan.configuration(checkpoint.configuration)
    existing = {} if plan is None else plan.configurations
    return (plan or checkpoint.plan).model_copy(
        update={"configurations": {configuration.name: configuration, **existing}}
    )


def _fold(checkpoint: Checkpoint) -> about.Fold:
    return about.Fold(
        training_cases=len(checkpoint.split["train"]),
        unlabelled_scans=len(checkpoint.split.get("unlabelled", ())),
        validation_cases=len(checkpoint.split["val"]),
        epochs=checkpoint.run.epoch,
        steps=checkpoint.run.step,
        channel_dropout=checkpoint.channel_dropout,
        start=about.start(checkpoint.provenance),
    )


def _scores(summary: Path) -> about.Scores | None:
    if not summary.exists():
        return None
    return about.scores(Summary.read(summary))


def _safetensors(checkpoint: Checkpoint, path: Path) -> bytes:
    state = {name: tensor.contiguous() for name, tensor in checkpoint.network.items()}
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(f"{path}: {broken[0]} holds NaN or infinite values. Train this fold again with --restart.")
    return safetensors.torch.save(state)


def _json(content: BaseModel) -> bytes:
    return (content.model_dump_json(indent=2) + "\n").encode()
