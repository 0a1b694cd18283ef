"""Validation of a trained fold on complete cases, with the code of prediction and evaluation."""

from pathlib import Path

from autocrossdim.commands.plugins import FoldTask
from autocrossdim.evaluation.diagnosis import history_sentences
from autocrossdim.evaluation.folder import Pair, evaluate_case
from autocrossdim.evaluation.summary import summarise
from autocrossdim.inference.model import Model
from autocrossdim.records.history import read_history
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.selection.held_out import (
    evidence_file,
    evidence_folder,
    predict_held_out,
    predicted_from,
    uncertainty_file,
)
from autocrossdim.system.console import say, track
from autocrossdim.system.device import choose_device
from autocrossdim.system.text import listed


def validate(task: FoldTask) -> None:
    """Segment and evaluate the validation cases of a fold.

    Writes `validation/CASE.ext`, `validation/uncertainty/CASE.ext`, `validation/summary.json` and, for `find_best`,
    `validation/calibration`. Results that exist are kept, unless the files of their case have changed. Those of cases
    that left the fold are removed.
    """
    folder, store, names, ending = task.folder, task.store, sorted(task.split.val), task.plan.file_ending
    if not names:
        return
    gone = [name for name in _validated(folder) if name not in names]
    if folder.summary.exists():
        outdated = [name for name in names if predicted_from(folder, name, ending) != store.source_hash(name)]
        if not outdated and not gone:
            return
        new = [name for name in outdated if not evidence_file(folder, name).exists()]
        if changed := [name for name in outdated if name not in new]:
            say(
                f"{folder.root}: validating {listed(changed)} again, because their files changed or results are "
                "missing."
            )
        if new or gone:
            say(
                f"{folder.root}: its validation cases changed (added: {listed(new) or 'none'}; removed: "
                f"{listed(gone) or 'none'})."
            )
        # Removed first: after an interruption, it would be taken for a summary of the present files.
        folder.summary.unlink()
    model = Model.load([folder.latest], choose_device(task.device))
    for name in gone:
        segmentation = folder.validation / f"{name}{ending}"
        for file in (segmentation, uncertainty_file(segmentation)):
            file.unlink(missing_ok=True)
        evidence_file(folder, name).unlink()
    own, results = task.configuration.name, []
    for name in track(names, f"Validating {folder.root.name.replace('_', ' ')}", len(names)):
        predict_held_out(name, stores={own: store}, models={own: model}, folders={(own,): folder})
        output = folder.validation / f"{name}{ending}"
        record = store.record(name)
        pair = Pair(output, Path(record.label_path), task.groups.get(name), record.annotated_labels)
        results.append(evaluate_case(pair, task.plan.labels))
    warnings = tuple(history_sentences(read_history(folder.history)))
    summarise(results, task.plan.labels).model_copy(update={"warnings": warnings}).write(folder.summary)


def _validated(folder: FoldFolder) -> list[str]:
    """Return the names of the cases that have been validated."""
    return sorted(file.stem for file in evidence_folder(folder).glob("[!.]*.npz"))
