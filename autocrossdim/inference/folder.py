"""Segmenting the cases of a directory, skipping those with a result."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from autocrossdim.data.dataset import Case
from autocrossdim.data.writing.formats import find
from autocrossdim.data.writing.results import Results
from autocrossdim.inference.case_list import (
    explain_list,
    has_uncertainty,
    remove_from_list,
    write_list,
    write_uncertainty,
)
from autocrossdim.inference.inputs import existing_files
from autocrossdim.inference.notes import training_cases
from autocrossdim.inference.pipeline import overlapped
from autocrossdim.inference.predictor import Predictor, Prepared
from autocrossdim.inference.segmentation import Segmentation
from autocrossdim.inference.stored import write_probabilities
from autocrossdim.records.origin import Origin
from autocrossdim.system.console import say, track, warn
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import counted, listed, shown_path


def segment_folder(
    predictor: Predictor,
    cases: Sequence[Case],
    output: Path,
    *,
    format: str,
    probabilities: bool = False,
    uncertainty: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Segment cases into a directory.

    Args:
        predictor: Trained models.
        cases: Cases to segment.
        output: Directory for the segmentations, each on the grid of its image.
        format: Name of the format of the segmentations.
        probabilities: Also write `CASE.npz` with the probabilities (K, Z, Y, X), float16.
        uncertainty: Also write uncertainty maps and the list of cases, least certain first.
        overwrite: Segment cases again that have a result.

    Returns:
        Paths of the segmentations.

    Raises:
        UserError: The models cannot be applied to an image, its segmentation would replace it, or another model made
            the existing segmentation of a case.
    """
    calibration = probabilities or uncertainty
    require_suitable(predictor, cases, output, format=format, calibration=calibration, overwrite=overwrite)
    files = _Files(predictor, output, format)
    remaining = [
        case
        for case in cases
        if overwrite or not files.exist(case, probabilities=probabilities, uncertainty=uncertainty)
    ]
    if len(remaining) < len(cases):
        skipped = f"{len(cases) - len(remaining)} of {counted(len(cases), 'case')}"
        say(f"Skipping {skipped} with a result (use --overwrite to segment them again).")
    if seen := training_cases(predictor.models, remaining):
        warn(
            f"The model was trained on {listed(seen)}, so their segmentations and expected Dice do not show how well "
            "it segments new images. Results on held-out cases are those of `find_best` and `report`."
        )
    # A plain U-Net has no batch norms that could adapt.
    adapted = any(model.image_statistics or model.configuration.kind == "plain" for model in predictor.models)

    def prepare(case: Case) -> Prepared:
        present = existing_files(case)
        if missing := files.missing_channels(case):
            names = ", ".join(missing)
            warn(f"{shown_path(case.name)}: segmented without {names}, which is missing. Check the result.")
        prepared = predictor.prepare(present)
        for warning in prepared.warnings:
            warn(warning)
        return prepared

    def segment(case: Case, prepared: Prepared) -> Segmentation:
        result = predictor.segment(prepared, probabilities=probabilities, uncertainty=uncertainty)
        if result.familiarity is not None and result.familiarity.is_unlike:
            warn(f"{shown_path(case.name)}: {result.familiarity.sentence(adapted=adapted)}")
        return result

    done = overlapped(remaining, lambda case: shown_path(case.name), prepare, segment, files.write)
    for _ in track(done, "Predicting", len(remaining)):
        pass
    files.results.finish(cases)
    if uncertainty:
        by_certainty = write_list(output)
        for sentence in explain_list(by_certainty, score=predictor.case_score, members=predictor.members):
            say(sentence)
    return [files.results.path(case) for case in cases]


def require_suitable(
    predictor: Predictor,
    cases: Sequence[Case],
    output: Path,
    *,
    format: str,
    calibration: bool,
    overwrite: bool = False,
) -> None:
    """Fail if the output directory does not suit what would be written to it.

    Args:
        predictor: Trained models.
        cases: Cases to segment.
        output: Directory for the segmentations; it may not exist yet.
        format: Name of the format of the segmentations.
        calibration: Whether results that depend on the calibration of the model are wanted.
        overwrite: Segment cases again that have a result.

    Raises:
        UserError: A segmentation would replace an image, or another model made the existing segmentation of a case.
    """
    files = _Files(predictor, output, format)
    _require_no_image_replaced(cases, files)
    if not overwrite:
        _require_same_origin(cases, files, calibration=calibration)


class _Files:
    """The files of the cases in the output directory."""

    def __init__(self, predictor: Predictor, output: Path, format: str) -> None:
        plan = predictor.plan
        self.output, self.ending, self.score = output, plan.file_ending, predictor.case_score
        self.channels, self.labels = plan.channel_names, plan.labels
        self.calibrated = predictor.best is not None and predictor.best.calibration.error_before is not None
        self.origin = predictor.origin
        self.results = Results(
            output, plan.labels, self.ending, find(format), codes=predictor.codes, origin=self.origin
        )

    def probabilities(self, case: Case) -> Path:
        return self.output / f"{case.name}.npz"

    def missing_channels(self, case: Case) -> tuple[str, ...]:
        """Return the names of the channels that a case lacks; it has at least one."""
        return tuple(name for name, file in zip(self.channels, existing_files(case), strict=False) if file is None)

    def exist(self, case: Case, *, probabilities: bool, uncertainty: bool) -> bool:
        return (
            self.results.path(case).exists()
            and (not probabilities or self.probabilities(case).exists())
            and (not uncertainty or has_uncertainty(self.output, case.name))
        )

    def write(self, case: Case, result: Segmentation) -> None:
        """Write everything of a case, the segmentation last: if it exists, the case is complete.

        An earlier segmentation is removed first. Otherwise, if `--overwrite` were interrupted here, it would remain
        beside the new numbers, and the next run would skip the case.
        """
        with suppress(OSError):  # a failure is reported when the segmentation is written
            self.results.path(case).unlink()
        if result.probabilities is not None:
            write_probabilities(self.probabilities(case), result.probabilities, self.labels, calibrated=self.calibrated)
        if result.uncertainty is None:
            remove_from_list(self.output, case.name)
        else:
            write_uncertainty(
                self.output,
                case.name,
                result.uncertainty,
                geometry=result.geometry,
                ending=self.ending,
                score=self.score,
                familiarity=result.familiarity,
                missing_channels=self.missing_channels(case),
            )
        self.results.write(case, result.label, result.geometry)


def _require_no_image_replaced(cases: Sequence[Case], files: _Files) -> None:
    images = {os.path.realpath(image) for case in cases for image in case.images}
    for case in cases:
        path = files.results.path(case)
        if os.path.realpath(path) in images:
            raise UserError(
                f"-o {files.output}: the segmentation {path.name} would replace the image itself. "
                "Choose another directory."
            )


def _require_same_origin(cases: Sequence[Case], files: _Files, *, calibration: bool) -> None:
    """Refuse to keep what another model made, and warn about segmentations of unknown origin.

    Args:
        cases: Cases to segment.
        files: Their files.
        calibration: Whether results that depend on the calibration of the model are wanted.

    Raises:
        UserError: The model or the options differ from those of an existing segmentation.
    """
    unknown: list[str] = []
    different: dict[Path, list[str]] = {}
    for case in cases:
        path = files.results.path(case)
        if not path.exists():
            continue
        origin = Origin.read(files.output, case.name)
        if origin is None:
            unknown.append(case.name)
        elif found := origin.differences(files.origin, calibration=calibration):
            different[path] = found
    if different:
        path, found = next(iter(different.items()))
        others = f" and {counted(len(different) - 1, 'other segmentation')}" if len(different) > 1 else ""
        raise UserError(
            f"{shown_path(path)}{others}: made by another model or with other options (different: "
            f"{'; '.join(found)}). Add --overwrite to segment these cases again, or choose another -o."
        )
    if unknown:
        warn(
            f"{shown_path(files.output)}: it is not known which model made the existing segmentations of "
            f"{listed(unknown)}. Add --overwrite to segment these cases again."
        )
