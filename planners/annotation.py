"""Sentences about what was not annotated and is therefore left out of training and scores."""

from autocrossdim.data.dataset import Dataset
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.system.text import listed


def annotation_notes(dataset: Dataset, fingerprint: Fingerprint) -> list[str]:
    """Return a sentence about slices and one about labels that were not annotated, if there are any.

    Args:
        dataset: The raw dataset.
        fingerprint: Its measurements.
    """
    notes = []
    counts = [case.annotated_slices for case in fingerprint.cases if case.annotated_slices is not None]
    if counts:
        annotated, total = (sum(column) for column in zip(*counts, strict=True))
        notes.append(
            f"{annotated:,} of {total:,} slices are annotated (unannotated_slices). The others are excluded from the "
            "loss and all scores."
        )
    if partial := [names for case, names in dataset.annotated_labels.items() if case in fingerprint.names]:
        number = len(fingerprint.cases)
        drawn = {name: number - sum(name not in names for names in partial) for name in dataset.labels.names}
        shown = listed([f"{name} in {count} of {number} cases" for name, count in drawn.items() if count < number])
        notes.append(f"Not all labels were annotated in every case (annotated_labels): {shown}.")
    return notes
