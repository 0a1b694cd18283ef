from autocrossdim.records.study import StudyResults, Table
from autocrossdim.records.workspace import Workspace
from autocrossdim.report.studies import study_sections


def test_studies_are_read_with_their_figures(tmp_path):
    workspace = Workspace.of("Dataset001_Tiny", tmp_path)
    assert study_sections(workspace) == []
    table = Table(headings=("arm", "Dice"), rows=(("a | b", "0.5"),))
    results = StudyResults(
        study="weights",
        dataset="Dataset001_Tiny",
        question="What?",
        conclusion="No difference shown.",
        notes=("A note.",),
        table=table,
        runs=(),
    )
    results.write(workspace.study("weights"))
    (section,) = study_sections(workspace)
    assert (section.results, section.figure) == (results, None)
    (workspace.study("weights") / "figure.png").write_bytes(b"png")
    assert study_sections(workspace)[0].figure == b"png"
    page = (workspace.study("weights") / "table.md").read_text(encoding="utf-8")
    assert page == "# What?\n\nNo difference shown.\n\n| arm | Dice |\n| --- | ---: |\n| a / b | 0.5 |\n\nA note.\n"
