"""Sentences about what was not annotated and is therefore left out of training and scores."""

from collections.abc import Sequence

from autocrossdim.data.dataset import Dataset
from autocrossdim.records.fingerprint import Fingerprint
from autocrossdim.system.text import listed

NAMED = ("(unannotated_slices)", "(annotated_labels)")  # each of these sentences contains one of them


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


def renewed_notes(notes: Sequence[str], dataset: Dataset, fingerprint: Fingerprint) -> tuple[str, ...]:
    """Return the notes of a plan with those on annotation replaced by what is true of the present cases.

    Args:
        notes: Notes of a plan, possibly made for other cases.
        dataset: The raw dataset.
        fingerprint: Its present measurements.
    """
    others = [note for note in notes if not _is_about_annotation(note)]
    place = next((index for index, note in enumerate(notes) if _is_about_annotation(note)), len(notes))
    return (*others[:place], *annotation_notes(dataset, fingerprint), *others[place:])


def _is_about_annotation(note: str) -> bool:
    return any(key in note for key in NAMED)
