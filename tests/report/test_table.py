from autocrossdim.evaluation.summary import summarise
from autocrossdim.records.labels import Labels
from autocrossdim.records.summary import CaseResult
from autocrossdim.report.sizes import Measure
from autocrossdim.report.table import results_table


def test_groups_have_a_column_only_if_there_are_any() -> None:
    metrics = {"1": {"Dice": 0.5, "NSD": 0.5, "HD95": 1.0, "ASSD": 1.0, "n_pred": 5, "n_ref": 5}}
    case = CaseResult(reference_file="a.nii.gz", prediction_file="a.nii.gz", metrics=metrics)
    labels, measure = Labels(foreground={"liver": (1,)}), Measure("volume", "mL")

    def table(case: CaseResult) -> list[tuple[str, object]]:
        found = results_table(summarise([case], labels), {}, measure, ending=".nii.gz", drawn=[], name="any")
        assert len(found["digits"]) == len(found["columns"]) == len(found["rows"][0])
        return list(zip(found["columns"], found["rows"][0], strict=True))

    assert table(case)[:3] == [("case", "a"), ("label", "liver"), ("outcome", "found")]
    assert table(case.model_copy(update={"group": "anna"}))[1] == ("group", "anna")
