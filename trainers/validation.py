"""Validation of a trained fold on complete cases, with the code of prediction and evaluation."""

from collections.abc import Mapping
from pathlib import Path

from autocrossdim.data.splits import Split
from autocrossdim.evaluation.diagnosis import history_sentences
from autocrossdim.evaluation.folder import Pair, evaluate_case
from autocrossdim.evaluation.summary import summarise
from autocrossdim.inference.model import Model
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.history import read_history
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.selection.calibration import Evidence
from autocrossdim.selection.held_out import evidence_file, predict_held_out, uncertainty_file
from autocrossdim.system.console import say, track
from autocrossdim.system.device import choose_device
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import listed


def validate(folder: FoldFolder, store: Store, split: Split, groups: Mapping[str, str], device: str) -> None:
    """Segment and evaluate the validation cases of a fold.

    Writes `validation/CASE.ext`, `validation/uncertainty/CASE.ext`, `validation/summary.json` and, for `find_best`,
    `validation/calibration`. Results that exist are kept, unless the files of their case have changed. Those of cases
    that left the fold are removed.

    Args:
        folder: Directory of the trained fold.
        store: Preprocessed cases.
        split: Names of the cases.
        groups: Group (patient) of each case that shares one with others.
        device: `auto`, `cpu`, or a GPU: `cuda`, `cuda:N`, `xpu` or `mps`.
    """
    if not split.val:
        return
    gone = [name for name in _validated(folder) if name not in split.val]
    if folder.summary.exists():
        outdated = [name for name in sorted(split.val) if not _is_current(folder, store, name)]
        if not outdated and not gone:
            return
        new = [name for name in outdated if not evidence_file(folder, name).exists()]
        if changed := [name for name in outdated if name not in new]:
            say(f"{folder.root}: {listed(changed)} changed since validation and must be validated again.")
        if new or gone:
            say(
                f"{folder.root}: its validation cases changed (added: {listed(new) or 'none'}; removed: "
                f"{listed(gone) or 'none'})."
            )
        # Removed first: after an interruption, it would be taken for a summary of the present files.
        folder.summary.unlink()
    model = Model.load([folder.latest], choose_device(device))
    for name in gone:
        segmentation = folder.validation / f"{name}{model.plan.file_ending}"
        for file in (segmentation, uncertainty_file(segmentation)):
            file.unlink(missing_ok=True)
        evidence_file(folder, name).unlink()
    configuration = model.configuration.name
    results = []
    for name in track(sorted(split.val), f"Validating {folder.root.name.replace('_', ' ')}", len(split.val)):
        predict_held_out(
            name, stores={configuration: store}, models={configuration: model}, folders={(configuration,): folder}
        )
        output = folder.validation / f"{name}{model.plan.file_ending}"
        record = store.record(name)
        pair = Pair(output, Path(record.label_path), groups.get(name), record.annotated_labels)
        results.append(evaluate_case(pair, model.plan.labels))
    warnings = tuple(history_sentences(read_history(folder.history)))
    summarise(results, model.plan.labels).model_copy(update={"warnings": warnings}).write(folder.summary)


def _validated(folder: FoldFolder) -> list[str]:
    """Return the names of the cases that have been validated."""
    return sorted(file.stem for file in evidence_file(folder, "any").parent.glob("[!.]*.npz"))


def _is_current(folder: FoldFolder, store: Store, name: str) -> bool:
    """Return whether the results of a validation case belong to the present version of its files."""
    try:
        return Evidence.read(evidence_file(folder, name)).source == store.source_hash(name)
    except UserError:  # missing or damaged: the case is segmented again
        return False
