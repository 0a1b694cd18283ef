from dataclasses import replace
from pathlib import Path

import pytest

from autocrossdim.data.annotation_notes import annotation_notes, renewed_notes
from autocrossdim.data.dataset import Dataset
from autocrossdim.records.fingerprint import CaseFingerprint, Fingerprint
from autocrossdim.records.labels import Labels

NOTES = [
    "32 of 2,000 slices are annotated (unannotated_slices). The others are excluded from the loss and all scores.",
    "Not all labels were annotated in every case (annotated_labels): label 1 in 2 of 4 cases.",
]


@pytest.fixture
def complete() -> tuple[Dataset, Fingerprint]:
    """A dataset of four cases in which everything was annotated, and its measurements."""
    dataset = Dataset(
        path=Path("Dataset900_Described"),
        name="Dataset900_Described",
        channel_names=("MRI",),
        labels=Labels(foreground={"label 1": (1,), "label 2": (2,)}),
        file_ending=".nii.gz",
        groups={},
        num_training=4,
        description={},
    )
    shape = (500, 32, 32)
    case = CaseFingerprint(name="a", shape=shape, cropped_shape=shape, spacing=(1, 1, 1), label_voxels={0: 1, 1: 1})
    cases = tuple(case.model_copy(update={"name": f"case_{number}"}) for number in range(4))
    return dataset, Fingerprint(dims=3, cases=cases, intensities=())


@pytest.fixture
def partial(complete: tuple[Dataset, Fingerprint]) -> tuple[Dataset, Fingerprint]:
    """The same cases with eight annotated slices each, two of them without one of the labels."""
    dataset, fingerprint = complete
    cases = tuple(case.model_copy(update={"annotated_slices": (8, 500)}) for case in fingerprint.cases)
    annotated = {"case_0": ("label 2",), "case_3": ("label 2",)}
    return replace(dataset, annotated_labels=annotated), fingerprint.model_copy(update={"cases": cases})


def test_what_was_not_annotated_is_noted(
    complete: tuple[Dataset, Fingerprint], partial: tuple[Dataset, Fingerprint]
) -> None:
    assert annotation_notes(*complete) == []
    assert annotation_notes(*partial) == NOTES


def test_only_the_notes_on_annotation_are_renewed(
    complete: tuple[Dataset, Fingerprint], partial: tuple[Dataset, Fingerprint]
) -> None:
    stale = [note.replace("32 of", "24 of").replace("2 of 4", "1 of 3") for note in NOTES]
    assert renewed_notes(["first", *stale, "last"], *partial) == ("first", *NOTES, "last")
    assert renewed_notes(["first", stale[1], "last"], *partial) == ("first", *NOTES, "last")
    assert renewed_notes(["first", *stale, "last"], *complete) == ("first", "last")
    assert renewed_notes(["first", "last"], *partial) == ("first", "last", *NOTES)
