"""From the folds of a work folder to one file: weights, plan, what is known of them, and a model card."""

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import safetensors.torch
from pydantic import BaseModel

from autocrossdim.models import about, card
from autocrossdim.models.archive import write_archive
from autocrossdim.models.model_file import (
    ABOUT,
    BEST,
    CARD,
    PLAN,
    SUFFIX,
    ModelFile,
    belongs,
    is_model_file,
    weights_name,
)
from autocrossdim.models.source import find_best_for, find_checkpoints
from autocrossdim.records.best import Best
from autocrossdim.records.checkpoint import Checkpoint
from autocrossdim.records.plan import Plan
from autocrossdim.system.console import say
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import read_json

# What may differ between plans whose folds are used together: reasons and costs, nothing that data or networks see.
_ASIDE = {"decision", "configurations", "precision_bits", "notes", "overrides"}


def pack(
    model: str | Path, output: Path, work: Path | None, folds: Sequence[int | str], configurations: Sequence[str]
) -> ModelFile:
    """Write trained folds into one file; the same folds give the same bytes.

    Args:
        model: a dataset trained in `work`, the folder of its results, or a model folder.
        output: of the file; ends in `.acd`.
        work: where datasets' results lie.
        folds: folds to pack; all trained ones if empty.
        configurations: configurations to pack; what `best.json`, else the plan, names if empty.

    Returns:
        The file, read and checked.

    Raises:
        UserError: nothing trained is there, a fold is unfinished or of another plan, or the name's end is another one.
    """
    if output.suffix != SUFFIX:
        raise UserError(f"-o {output}: the file's name must end in {SUFFIX}.")
    if is_model_file(model):
        raise UserError(f"{model}: a file; give the dataset or the model folder to export.")
    checkpoints = [path for paths in find_checkpoints(model, work, folds, configurations) for path in paths]
    best, notes = find_best_for(model, work, folds, configurations)
    for note in notes:
        say(note)
    program = version("autocrossdim")
    write_archive(output, _members(checkpoints, best, program, output.name), program)
    return ModelFile.read(output)


def _members(paths: Sequence[Path], best: Best | None, program: str, name: str) -> Iterator[tuple[str, bytes]]:
    """Yield the members, one fold in memory at a time."""
    plan: Plan | None = None
    trained: dict[str, about.Trained] = {}
    cases: set[str] = set()
    for path in paths:
        checkpoint = Checkpoint.read(path)
        plan = _joined(plan, checkpoint, path, paths[0])
        configuration, fold = checkpoint.configuration, f"fold_{checkpoint.fold}"
        here = trained.setdefault(configuration, about.Trained(folds={}, cross_validation=_scores(path)))
        if fold in here.folds:
            raise UserError(f"{path}: another checkpoint is fold {checkpoint.fold} of {configuration} as well.")
        here.folds[fold] = _fold(checkpoint)
        cases.update(*checkpoint.split.values())
        yield weights_name(configuration, checkpoint.fold), _safetensors(checkpoint, path)
    assert plan is not None
    # <root>/models/<configuration>/fold_<k>/checkpoint_latest
    root = paths[0].absolute().parents[3:4]
    data = about.data(root[0] / "fingerprint.json", sorted(cases)) if root else None
    described = about.About(data=data, configurations=trained)
    yield PLAN, _json(plan)
    if best is not None:
        if not belongs(best, plan):
            raise UserError(
                "best.json is not about the plan these folds were trained under. Run `autocrossdim find_best` again."
            )
        yield BEST, _json(best)
    yield ABOUT, _json(described)
    yield CARD, card.write(plan, described, program, name).encode()


def _joined(plan: Plan | None, checkpoint: Checkpoint, path: Path, first: Path) -> Plan:
    """The plan with the checkpoint's configuration in it; refuses a checkpoint that is not of the same plan."""
    if not checkpoint.complete:
        epoch = checkpoint.progress["epoch"]
        raise UserError(f"{path}: training stopped after epoch {epoch}. Finish it with `autocrossdim train`.")
    theirs = checkpoint.plan
    one = theirs.configuration(checkpoint.configuration)
    if plan is None:
        return theirs.model_copy(update={"configurations": {one.name: one}})
    there = plan.configurations.get(one.name, one)
    if not there.trains_like(one) or plan.model_dump(exclude=_ASIDE) != theirs.model_dump(exclude=_ASIDE):
        raise UserError(f"{path}: trained under another plan than {first}. Train again with --restart.")
    return plan.model_copy(update={"configurations": {**plan.configurations, one.name: there}})


def _fold(checkpoint: Checkpoint) -> about.Fold:
    return about.Fold(
        training_cases=len(checkpoint.split["train"]),
        validation_cases=len(checkpoint.split["val"]),
        epochs=checkpoint.progress["epoch"],
        steps=checkpoint.progress["step"],
        start=about.start(checkpoint.provenance),
    )


def _scores(checkpoint: Path) -> about.Scores | None:
    summary = checkpoint.parent.parent / "summary.json"
    if not summary.exists():
        return None
    try:
        return about.scores(read_json(summary))
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{summary}: damaged. Train again to have it written, or delete it.") from error


def _safetensors(checkpoint: Checkpoint, path: Path) -> bytes:
    state = {name: tensor.contiguous() for name, tensor in checkpoint.network.items()}
    broken = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if broken:
        raise UserError(f"{path}: {broken[0]} holds NaN or infinite values. Train this fold again with --restart.")
    return safetensors.torch.save(state)


def _json(content: BaseModel) -> bytes:
    return (content.model_dump_json(indent=2) + "\n").encode()
