"""The fold's validation cases, whole, through the code of prediction, compared with their labels."""

from collections.abc import Mapping
from pathlib import Path

from autocrossdim.data.splits import Split
from autocrossdim.evaluation.folder import Pair, evaluate_case
from autocrossdim.evaluation.summary import summarise
from autocrossdim.inference.model import Model
from autocrossdim.preprocessing.store import Store
from autocrossdim.records.workspace import FoldFolder
from autocrossdim.selection.held_out import predict_held_out
from autocrossdim.system.console import track
from autocrossdim.system.device import choose_device


def validate(folder: FoldFolder, store: Store, split: Split, groups: Mapping[str, str], device: str) -> None:
    """Segment and evaluate the fold's validation cases; cases already segmented are kept.

    Args:
        folder: of the trained fold; gets `validation/CASE.ext`, `validation/summary.json`, and in
            `validation/calibration` what `find_best` calibrates probabilities with.
        store: preprocessed cases.
        split: names the cases.
        groups: the patient of a case.
        device: `auto`, `cpu` or `cuda`.
    """
    if not split.val or folder.summary.exists():
        return
    model = Model.load([folder.latest], choose_device(device))
    results = []
    for name in track(sorted(split.val), f"Validating {folder.root.name}", len(split.val)):
        record = store.record(name)
        configuration = model.configuration.name
        predict_held_out(
            name, stores={configuration: store}, models={configuration: model}, folders={(configuration,): folder}
        )
        output = folder.validation / f"{name}{model.plan.file_ending}"
        pair = Pair(output, Path(record.label_path), groups.get(name))
        results.append(evaluate_case(pair, model.plan.labels))
    summarise(results, model.plan.labels).write(folder.summary)
