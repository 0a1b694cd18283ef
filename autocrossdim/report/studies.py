"""The studies of a dataset, for the report: conclusion, figure and table of each."""

from dataclasses import dataclass

from autocrossdim.records.study import StudyResults
from autocrossdim.records.workspace import Workspace


@dataclass(frozen=True)
class StudySection:
    """A study that has results, and its figure as PNG if there is one."""

    results: StudyResults
    figure: bytes | None


def study_sections(workspace: Workspace) -> list[StudySection]:
    """Return the studies of a dataset that have results, sorted by name.

    Raises:
        UserError: A results.json is damaged.
    """
    sections = []
    for file in sorted(workspace.studies.glob("*/results.json")):
        figure = file.with_name("figure.png")
        sections.append(StudySection(StudyResults.read(file), figure.read_bytes() if figure.is_file() else None))
    return sections
