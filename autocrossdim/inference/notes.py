"""What to tell the user about a loaded predictor: its memory and post-processing, and what it was trained on."""

from collections.abc import Sequence

from autocrossdim.data.dataset import Case
from autocrossdim.inference.model import Model
from autocrossdim.inference.residence import Visiting
from autocrossdim.records.best import Best, KeepLargest
from autocrossdim.records.likeness import LEAST_GROUPS
from autocrossdim.records.sources import content_hash, file_versions

OTHER_STATISTICS = (
    "With --image-statistics, images are not compared with the training data, and the expected Dice is less reliable: "
    "both depend on the statistics used for the held-out cases."
)


def notes_on(models: Sequence[Model], best: Best | None, steps: Sequence[KeepLargest]) -> list[str]:
    """Return one sentence per note.

    Args:
        models: All models, previous stages of cascades included.
        best: Result of `find_best` for these models; None if it does not apply to them.
        steps: Post-processing that is applied.
    """
    likeness = _likeness(best) if all(model.is_as_validated for model in models) else [OTHER_STATISTICS]
    return [*_memory(models), *([] if best is None else [_postprocessing(best, steps)]), *likeness]


def training_cases(models: Sequence[Model], cases: Sequence[Case]) -> list[str]:
    """Return the names of the cases whose images a network was trained on, whatever they were called then.

    Raises:
        UserError: An image cannot be read.
    """
    known = set[str]().union(*(model.trained_on for model in models))
    return [
        case.name
        for case in cases
        if known and all(file.is_file() for file in case.images) and content_hash(file_versions(case.images)) in known
    ]


def _memory(models: Sequence[Model]) -> list[str]:
    networks = [network for model in models for network in model.networks]
    visiting = sum(isinstance(network, Visiting) for network in networks)
    if not visiting:
        return []
    return [
        f"The GPU has no room for {visiting} of {len(networks)} networks; they are moved there when they are "
        "needed. Prediction is faster with fewer folds or configurations (--fold, --config)."
    ]


def _postprocessing(best: Best, steps: Sequence[KeepLargest]) -> str:
    if steps:
        names = ", ".join(step.name for step in steps)
        return f"Post-processing: only the largest connected component of {names} is kept."
    if best.postprocessing:
        return "Post-processing: switched off."
    return "Post-processing: none, because it did not improve held-out cases."


def _likeness(best: Best | None) -> list[str]:
    if best is not None and best.likeness is not None:
        return []
    return [
        "Images are not compared with the training data: this needs the result of `find_best` for these models, "
        f"with {LEAST_GROUPS} or more held-out cases or patients."
    ]
