"""Scans to annotate next, as the report shows them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from autocrossdim.records.labels import Labels
from autocrossdim.records.suggestions import Suggestion, Suggestions
from autocrossdim.records.workspace import Workspace
from autocrossdim.report.pictures import case_picture
from autocrossdim.report.scans import read_scan


@dataclass(frozen=True)
class SuggestedScan:
    """One scan to annotate.

    Attributes:
        rank: Place in the list, from 1.
        suggestion: The scan.
        png: PNG of the slice with the largest segmented area; None if a file is missing.
    """

    rank: int
    suggestion: Suggestion
    png: bytes | None


@dataclass(frozen=True)
class Suggested:
    """The list of `annotate_next`.

    Attributes:
        record: The list as it was written.
        scans: Scans that have not been annotated since.
        done: Number of scans that have been annotated.
    """

    record: Suggestions
    scans: Sequence[SuggestedScan]
    done: int


def suggested(workspace: Workspace, labels: Labels, annotated: Collection[str]) -> Suggested | None:
    """Return the scans to annotate next with a picture of each; None if there is no list, or nothing is left of it.

    Args:
        workspace: Workspace of the dataset.
        labels: Labels to outline.
        annotated: Names of the training cases.

    Raises:
        UserError: The list or an image is damaged.
    """
    if not workspace.suggestions.exists():
        return None
    record = Suggestions.read(workspace.suggestions)
    scans = [
        SuggestedScan(rank, each, _picture(each, labels))
        for rank, each in enumerate(record.suggestions, start=1)
        if each.case not in annotated
    ]
    return Suggested(record, scans, len(record.suggestions) - len(scans)) if scans else None


def _picture(suggestion: Suggestion, labels: Labels) -> bytes | None:
    if not all(path.exists() for path in (suggestion.draft, *suggestion.images)):
        return None
    return case_picture(read_scan(suggestion.images, None, suggestion.draft, labels), labels)
