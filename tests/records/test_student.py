from autocrossdim.records.student import Student


def test_one_scan_is_not_several() -> None:
    student = Student(name="dx_distilled", teachers=("dx",), teachers_digest="", unlabelled=1, saving=40.0)
    assert "on the training cases and 1 unlabelled scan. Prediction" in student.sentence
