"""Segmenting unlabelled scans, and measuring how uncertain the model is about each and what it looks like."""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from autocrossdim.data.annotated_slices import slice_axis
from autocrossdim.data.dataset import Case
from autocrossdim.data.images import write_label
from autocrossdim.inference.case_list import describe
from autocrossdim.inference.inputs import existing_files
from autocrossdim.inference.likeness import feature_numbers, image_numbers
from autocrossdim.inference.pipeline import overlapped
from autocrossdim.inference.predictor import Predictor, Prepared
from autocrossdim.inference.segmentation import Segmentation
from autocrossdim.records.best import checkpoint_digests
from autocrossdim.records.sources import FileVersion, file_versions
from autocrossdim.records.suggestions import ScanMeasures
from autocrossdim.records.workspace import Workspace
from autocrossdim.system.console import track
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import list_directory, read_record, write_json
from autocrossdim.system.text import shown_path

Measured = tuple[Segmentation, ScanMeasures]


def measure_scans(predictor: Predictor, cases: Sequence[Case], workspace: Workspace) -> list[ScanMeasures]:
    """Segment and measure scans; results of an earlier call with the same model and images are reused.

    Writes the segmentation of each scan and, last, its measurements to `annotate_next/` in the workspace.

    Args:
        predictor: Trained models of the workspace.
        cases: Unlabelled scans.
        workspace: The workspace.

    Returns:
        The measurements, in the order of the scans.

    Raises:
        UserError: An image cannot be read, or the model cannot be applied to it.
    """
    model = _digest(predictor, workspace)
    known = {case.name: _known(case, model, workspace, predictor.plan.file_ending) for case in cases}
    remaining = [case for case in cases if known[case.name] is None]

    def prepare(case: Case) -> Prepared:
        return predictor.prepare(existing_files(case))

    def compute(case: Case, prepared: Prepared) -> Measured:
        prepared = predictor.after_stages(prepared)
        result = predictor.segment(prepared, uncertainty=True)
        return result, _measure(case, prepared, result, predictor, model)

    def write(case: Case, measured: Measured) -> None:
        result, measures = measured
        write_label(result.label, result.geometry, draft(case, workspace, predictor.plan.file_ending))
        write_json(_file(case, workspace), measures.model_dump(mode="json"))
        known[case.name] = measures

    done = overlapped(remaining, lambda case: shown_path(case.name), prepare, compute, write)
    for _ in track(done, "Segmenting unlabelled scans", len(remaining)):
        pass
    return [measures for measures in known.values() if measures is not None]


def draft(case: Case, workspace: Workspace, ending: str) -> Path:
    """Return the path of the segmentation of an unlabelled scan."""
    return workspace.drafts / f"{case.name}{ending}"


def _file(case: Case, workspace: Workspace) -> Path:
    # In a directory of its own: a 3D TIFF has its spacing in CASE.json beside it.
    return workspace.drafts / "measurements" / f"{case.name}.json"


def _digest(predictor: Predictor, workspace: Workspace) -> str:
    """Return a digest of everything but the image on which the result depends."""
    models = [*predictor.models, *predictor.stages.values()]
    checkpoints = [checkpoint_digests(workspace, [model.configuration.name], model.folds) for model in models]
    best = None if predictor.best is None else predictor.best.model_dump_json()
    return sha256(repr([checkpoints, best, predictor.mirroring]).encode()).hexdigest()


def _known(case: Case, model: str, workspace: Workspace, ending: str) -> ScanMeasures | None:
    file = _file(case, workspace)
    if not file.exists() or not draft(case, workspace, ending).exists():
        return None
    try:
        measures = read_record(ScanMeasures, file, remedy="")
    except UserError:  # damaged: it is computed again
        return None
    if measures.model != model:
        return None
    versions = _versions(case, measures.files)
    return measures if [v.content for v in versions] == [v.content for v in measures.files] else None


def _versions(case: Case, known: Sequence[FileVersion] = ()) -> tuple[FileVersion, ...]:
    found = [path for path in case.source_files if path.exists()]
    files = [file for path in found for file in (list_directory(path) if path.is_dir() else [path])]
    return file_versions(files, known)


def _measure(case: Case, prepared: Prepared, result: Segmentation, predictor: Predictor, model: str) -> ScanMeasures:
    uncertainty = result.uncertainty
    assert uncertainty is not None
    foreground = predictor.plan.labels.foreground
    found = {name: np.isin(result.label, values) for name, values in foreground.items()}
    numbers = describe(case.name, uncertainty, predictor.case_score, result.familiarity)
    axis = slice_axis(result.geometry)
    occupied = np.flatnonzero((result.label > 0).any(axis=tuple(other for other in range(3) if other != axis)))
    if len(occupied) == 0:
        occupied = np.arange(result.label.shape[axis])
    return ScanMeasures(
        case=case.name,
        model=model,
        files=_versions(case),
        entropy=float(uncertainty.entropy.mean()),
        label_entropy={name: float(uncertainty.entropy[mask].mean()) for name, mask in found.items() if mask.any()},
        expected_dice=numbers.expected_dice,
        unlike_training=numbers.unlike_training,
        slice_axis=axis,
        extent=(int(occupied[0]), int(occupied[-1])),
        features=tuple(np.round(_features(predictor, prepared), 4).tolist()),
    )


def _features(predictor: Predictor, prepared: Prepared) -> np.ndarray:
    """Return the features of the first network; numbers of the image alone if it has no encoder."""
    model, case = predictor.models[0], prepared.inputs[0]
    found = feature_numbers(replace(model, networks=model.networks[:1], folds=model.folds[:1]), case.image)
    if found:
        return next(iter(found.values()))
    image = case.image[: len(predictor.plan.channel_names)]
    return np.concatenate(list(image_numbers(image, case.placement).values()))
