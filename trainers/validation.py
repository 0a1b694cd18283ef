"""The fold's validation cases, whole, through the code of prediction, compared with their labels."""

from collections.abc import Mapping
from pathlib import Path

from autocrossdim.console import track
from autocrossdim.data.images import write_label
from autocrossdim.data.splits import Split
from autocrossdim.data.store import Store
from autocrossdim.device import choose_device
from autocrossdim.evaluation.summary import evaluate_case, summarise
from autocrossdim.files import write_json
from autocrossdim.inference.predictor import Model, assemble
from autocrossdim.workspace import FoldFolder


def validate(folder: FoldFolder, store: Store, split: Split, groups: Mapping[str, str], device: str) -> None:
    """Segment and evaluate the fold's validation cases; cases already segmented are kept.

    Args:
        folder: of the trained fold; gets `validation/CASE.ext` and `validation/summary.json`.
        store: preprocessed cases.
        split: names the cases.
        groups: the patient of a case.
        device: `auto`, `cpu` or `cuda`.
    """
    summary_file = folder.validation / "summary.json"
    if not split.val or summary_file.exists():
        return
    model = Model.load([folder.latest], choose_device(device))
    results = []
    for name in track(sorted(split.val), f"Validating {folder.root.name}", len(split.val)):
        record = store.record(name)
        output = folder.validation / f"{name}{model.plan.file_ending}"
        if not output.exists():
            stream = model.slices(store.open(name).image[:], record.placement, mirroring=True)
            segmentation = assemble([stream], model.plan.labels, record.placement)
            write_label(segmentation.label, record.original_geometry(), output)
        results.append(evaluate_case(output, Path(record.label_path), model.plan.labels, groups.get(name)))
    write_json(summary_file, summarise(results, model.plan.labels))
