"""Many cases, one after another: read ahead, segmented, written behind; what is done already is not done again."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from autocrossdim.data.dataset import Case
from autocrossdim.data.images import Geometry, write_label
from autocrossdim.inference.inputs import far_from_training
from autocrossdim.inference.pipeline import overlapped
from autocrossdim.inference.predictor import Predictor, Prepared, Segmentation
from autocrossdim.inference.uncertainty import forget, is_written, tell, write_list, write_uncertainty
from autocrossdim.system.console import say, track
from autocrossdim.system.errors import UserError
from autocrossdim.system.files import written_whole


def segment_folder(
    predictor: Predictor,
    cases: Sequence[Case],
    output: Path,
    probabilities: bool = False,
    uncertainty: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Segment cases into a folder.

    Args:
        predictor: trained models.
        cases: their images.
        output: folder of the segmentations, each on its image's own grid.
        probabilities: also write `CASE.npz` with the probabilities (K, Z, Y, X), float16.
        uncertainty: also write the maps and the list of cases to look at first.
        overwrite: segment cases again whose result exists.

    Returns:
        The segmentations' paths.

    Raises:
        UserError: an image the models cannot take, or that its segmentation would replace.
    """
    plan = predictor.plan
    wanted = [(case, output / f"{case.name}{plan.file_ending}") for case in cases]
    images = {image.resolve() for case in cases for image in case.images}
    for _, path in wanted:
        if path.resolve() in images:
            raise UserError(f"-o {output}: {path.name} would replace the image itself. Choose another folder.")
    missing = [
        (case, path)
        for case, path in wanted
        if overwrite
        or not path.exists()
        or (probabilities and not (output / f"{case.name}.npz").exists())
        or (uncertainty and not is_written(output, case.name))
    ]
    if len(missing) < len(wanted):
        say(f"{len(wanted) - len(missing)} of {len(wanted)} cases are done already (--overwrite does them again).")

    def read(job: tuple[Case, Path]) -> tuple[Geometry, list[Prepared]]:
        geometry, prepared = predictor.prepare_files(job[0].images)
        for doubt in far_from_training(geometry.spacing, plan, [model.configuration for model in predictor.models]):
            say(f"warning: {job[0].images[0]}: {doubt}")
        return geometry, prepared

    def segment(_: object, read: tuple[Geometry, list[Prepared]]) -> tuple[Geometry, Segmentation]:
        return read[0], predictor.segment(read[1], probabilities, uncertainty)

    def write(job: tuple[Case, Path], result: tuple[Geometry, Segmentation]) -> None:
        (case, path), (geometry, segmentation) = job, result
        if segmentation.probabilities is not None:
            with written_whole(output / f"{case.name}.npz") as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, probabilities=segmentation.probabilities)
        if segmentation.uncertainty is None:
            forget(output, case.name)
        else:
            score, ending = predictor.case_score, plan.file_ending
            write_uncertainty(output, case.name, segmentation.uncertainty, geometry, ending, score)
        # The segmentation comes last: where it exists, everything of the case does.
        write_label(segmentation.label, geometry, path)

    done = overlapped(missing, lambda job: job[0].name, read, segment, write)
    for _ in track(done, "Predicting", len(missing)):
        pass
    if uncertainty:
        for sentence in tell(write_list(output), predictor.case_score, predictor.members):
            say(sentence)
    return [path for _, path in wanted]
