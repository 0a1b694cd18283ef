"""Soft labels of a fold: which files are kept."""

from pathlib import Path

from autocrossdim.selection.teachers import _remove_outdated


def test_soft_labels_by_other_teachers_or_of_an_earlier_file_are_removed_and_those_of_other_scans_are_kept(
    tmp_path: Path,
) -> None:
    for name in ("case_0_now_present", "case_0_before_present", "case_0_now_former", "scan_1_now_present"):
        (tmp_path / f"{name}.b2nd").touch()
    _remove_outdated({"case_0": tmp_path / "case_0_now_present.b2nd"})
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["case_0_now_present", "scan_1_now_present"]
