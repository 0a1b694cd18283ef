"""What all layouts share: resuming, what the output may hold, and options."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autocrossdim
from autocrossdim.cli import app
from autocrossdim.data.converting import writer
from autocrossdim.system.errors import UserError
from autocrossdim.system.lock import LOCK, locked


@pytest.fixture
def source(tmp_path: Path, write_image) -> Path:
    for number in range(4):
        array = np.random.default_rng(number).integers(0, 200, (4, 8, 6)).astype(np.int16)
        write_image(tmp_path / "pairs" / "images" / f"c{number}.nii.gz", array)
        write_image(tmp_path / "pairs" / "labels" / f"c{number}.nii.gz", (array > 100).astype(np.uint8))
    return tmp_path / "pairs"


def test_only_changed_cases_are_written_again(source: Path, tmp_path: Path, write_image) -> None:
    assert autocrossdim.convert(source, tmp_path / "out", processes=1).written == 4
    assert autocrossdim.convert(source, tmp_path / "out", processes=1).written == 0
    write_image(source / "images" / "c2.nii.gz", np.full((4, 8, 6), 7, np.int16))
    (tmp_path / "out" / "labelsTr" / "c3.nii.gz").unlink()
    assert autocrossdim.convert(source, tmp_path / "out", processes=1).written == 2
    copied = (tmp_path / "out" / "imagesTr" / "c2_0000.nii.gz").read_bytes()
    assert copied == (source / "images" / "c2.nii.gz").read_bytes()


def test_a_record_names_each_source_in_plain_json(source: Path, tmp_path: Path) -> None:
    autocrossdim.convert(source, tmp_path / "out", processes=1)
    record = json.loads((tmp_path / "out" / "sources" / "c1.json").read_text(encoding="utf-8"))
    assert record["channels"] == [{"reader": "ImageFile", "path": str(source / "images" / "c1.nii.gz")}]
    assert record["label"]["path"] == str(source / "labels" / "c1.nii.gz")


def test_keys_added_by_hand_outlive_another_conversion(
    source: Path, tmp_path: Path, edit_json, monkeypatch: pytest.MonkeyPatch
) -> None:
    autocrossdim.convert(source, tmp_path / "out", processes=1)
    edit_json(tmp_path / "out", unannotated_slices="empty")
    with monkeypatch.context() as interrupted:
        interrupted.setattr(writer, "map_cases", lambda *_: [])
        interrupted.setattr(writer, "_write_lists", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            autocrossdim.convert(source, tmp_path / "out", processes=1)
    autocrossdim.convert(source, tmp_path / "out", processes=1)
    content = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert content["unannotated_slices"] == "empty"
    assert content["numTraining"] == 4
    assert not list((tmp_path / "out").glob("*former*"))


def test_patients_that_were_added_by_hand_outlive_another_conversion(source: Path, tmp_path: Path, edit_json) -> None:
    """Two directories of files do not say which cases are of one patient."""
    assert autocrossdim.convert(source, tmp_path / "out", processes=1).patients_unknown
    edit_json(tmp_path / "out", groups={"c0": "anna", "c1": "anna"})
    assert not autocrossdim.convert(source, tmp_path / "out", processes=1).patients_unknown
    content = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert content["groups"] == {"c0": "anna", "c1": "anna"}


def test_patients_of_a_table_are_those_of_its_present_lines(source: Path, tmp_path: Path) -> None:
    table = tmp_path / "cases.csv"
    lines = [f"c{number},pairs/images/c{number}.nii.gz,pairs/labels/c{number}.nii.gz" for number in range(4)]
    for patient in ("anna", "berta"):
        table.write_text("\n".join(["case,CT,label,group", *(f"{line},{patient}" for line in lines)]))
        assert not autocrossdim.convert(table, tmp_path / "out", processes=1).patients_unknown
        content = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
        assert set(content["groups"].values()) == {patient}
    table.write_text("\n".join(["case,CT,label", *lines]))
    autocrossdim.convert(table, tmp_path / "out", processes=1)
    content = json.loads((tmp_path / "out" / "dataset.json").read_text(encoding="utf-8"))
    assert set(content["groups"].values()) == {"berta"}, "patients are not forgotten"


def test_a_case_without_a_label_is_named(source: Path, tmp_path: Path) -> None:
    (source / "labels" / "c1.nii.gz").unlink()
    converted = autocrossdim.convert(source, tmp_path / "out", processes=1)
    assert "1 case of 4 has no label: c1. Its images are in imagesTs." in converted.warnings
    assert (tmp_path / "out" / "imagesTs" / "c1_0000.nii.gz").is_file()


def test_an_interrupted_conversion_resumes(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = writer._write_case
    written: list[str] = []

    def interrupted(description, output, case) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(case.name)
        whole(description, output, case)

    monkeypatch.setattr(writer, "_write_case", interrupted)
    with pytest.raises(KeyboardInterrupt):
        autocrossdim.convert(source, tmp_path / "out", processes=1)
    assert not (tmp_path / "out" / "dataset.json").exists()
    monkeypatch.undo()
    converted = autocrossdim.convert(source, tmp_path / "out", processes=1)
    assert (converted.training, converted.written) == (4, 2)
    assert autocrossdim.verify(tmp_path / "out", processes=1).faults == []


def test_what_no_conversion_wrote_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="contains files that no conversion wrote"):
        autocrossdim.convert(source, tmp_path / "out", processes=1)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_cases_that_would_stay_behind_are_a_fault(source: Path, tmp_path: Path) -> None:
    autocrossdim.convert(source, tmp_path / "out", processes=1)
    (source / "labels" / "c1.nii.gz").unlink()  # a test case from now on
    (source / "images" / "c3.nii.gz").unlink()
    (source / "labels" / "c3.nii.gz").unlink()
    with pytest.raises(UserError, match="contains 2 cases of another conversion, .*: c1, c3"):
        autocrossdim.convert(source, tmp_path / "out", processes=1)


@pytest.mark.parametrize("output", ["pairs", "pairs/out", "."])
def test_the_source_is_never_written_to(source: Path, tmp_path: Path, output: str) -> None:
    with pytest.raises(UserError, match="overlaps with the source"):
        autocrossdim.convert(source, tmp_path / output, processes=1)


@pytest.mark.slow
def test_workers_write_the_same(source: Path, tmp_path: Path) -> None:
    for number, folder in enumerate(("one", "two"), start=1):
        autocrossdim.convert(source, tmp_path / folder, processes=number)
    for file in (tmp_path / "one" / "labelsTr").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / "labelsTr" / file.name).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "dicomm"}, "--layout dicomm: no such layout"),
        ({"modality": "t1"}, "--modality: not used by the layout pairs, only by chaos"),
        ({"label": ["x"]}, "--label x: use NAME=VALUE"),
        ({"label": {"x": 1, "y": 1}}, "a name or a value is given more than once"),
    ],
)
def test_options_that_make_no_sense_are_refused(source: Path, tmp_path: Path, options, message: str) -> None:
    with pytest.raises(UserError, match=message):
        autocrossdim.convert(source, tmp_path / "out", processes=1, **options)


def test_an_unknown_layout_lists_those_that_are_known(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="none of the layouts is recognised here.*msd"):
        autocrossdim.convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UserError, match="gone: no such file or directory"):
        autocrossdim.convert(tmp_path / "gone", tmp_path / "out")


@pytest.mark.parametrize(("space", "number"), [("space: LPS", 0), ("space dimension: 3", 1)])
def test_an_orientation_that_only_the_converted_file_states_is_pointed_out(
    source: Path, tmp_path: Path, space: str, number: int
) -> None:
    image = source / "images" / "c1.nii.gz"
    head = f"NRRD0004\ntype: uint8\ndimension: 3\n{space}\nsizes: 6 8 4\nspace directions: (1,0,0) (0,1,0) (0,0,1)\n"
    image.with_name("c1.nrrd").write_bytes(
        f"{head}kinds: domain domain domain\nencoding: raw\n\n".encode() + bytes(192)
    )
    image.unlink()
    warnings = autocrossdim.convert(source, tmp_path / "out", processes=1).warnings
    found = [warning for warning in warnings if "the image files of c1 do not state their orientation" in warning]
    assert len(found) == number


def test_the_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["convert", str(source), "-o", str(tmp_path / "out"), "--label", "organ=1", "--processes", "1"]
    app(words, standalone_mode=False)
    shown = capsys.readouterr().out
    assert "4 training cases and 0 test cases of the layout pairs; 4 written, 0 unchanged." in shown
    assert (
        f"The layout pairs does not say which cases are of one patient. If some are, add groups to {tmp_path}" in shown
    )
    assert f"Next: autocrossdim verify {tmp_path / 'out'}" in shown
    app([*words, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["written"] == 0


def test_a_full_disk_is_not_taken_for_a_source_that_cannot_be_read(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(UserError, match=r"out/imagesTr/c0_0000\.nii\.gz: cannot be written \(the disk is full\)"):
        autocrossdim.convert(source, tmp_path / "out", processes=1)


def test_a_dataset_that_was_converted_while_this_one_was_read_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output, examine = tmp_path / "out", writer._examine

    def meanwhile(*arguments: Any) -> Any:
        if not output.exists():
            monkeypatch.setattr(writer, "_examine", examine)
            for part in ("images", "labels"):
                shutil.copytree(source / part, tmp_path / "others" / part)
                (tmp_path / "others" / part / "c0.nii.gz").rename(tmp_path / "others" / part / "other.nii.gz")
            autocrossdim.convert(tmp_path / "others", output, processes=1)
        return examine(*arguments)

    monkeypatch.setattr(writer, "_examine", meanwhile)
    with pytest.raises(UserError, match="nothing was converted"):
        autocrossdim.convert(source, output, processes=1)
    assert (output / "labelsTr" / "other.nii.gz").exists()
    assert not (output / "labelsTr" / "c0.nii.gz").exists()


def test_a_dataset_that_another_process_writes_is_refused(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autocrossdim.system.lock.SECONDS_TO_END", 0.0)
    output = tmp_path / "out"
    with locked(output / LOCK, output), pytest.raises(UserError, match=r"out: process \d+ on .* is writing to it"):
        autocrossdim.convert(source, output, processes=1)
    assert not output.exists()
    output.mkdir()
    (output / LOCK).touch()  # of a process that was killed
    assert autocrossdim.convert(source, output, processes=1).written == 4
    assert not (output / LOCK).exists()
