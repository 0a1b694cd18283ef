"""Directories without access, impossible names, devices and pipes: one line that names the path, whatever reads it."""

import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocrossdim.data import dicom
from autocrossdim.data.dataset import cases_in_folder, load_dataset
from autocrossdim.data.dicom import dicom_folders
from autocrossdim.data.find import find_dataset
from autocrossdim.data.geometry import Geometry
from autocrossdim.data.images import read_dicom_series, read_image, read_label, write_label
from autocrossdim.data.splits import load_or_make_splits
from autocrossdim.data.verify import verify
from autocrossdim.preprocessing.store import Store
from autocrossdim.system.errors import UserError

GEOMETRY = Geometry((2, 3, 4), (1, 1, 1), (0, 0, 0), (1, 0, 0, 0, 1, 0, 0, 0, 1), 3)

# Everything in these rooms that takes a path of a directory or file from outside.
ACCESSES: dict[str, Callable[[Path], Any]] = {
    "find_dataset": find_dataset,
    "load_dataset": load_dataset,
    "verify": verify,
    "cases_in_folder": lambda path: cases_in_folder(path, 1, ".nii.gz"),
    "read_image": lambda path: read_image([path / "a_0000.nii.gz"]),
    "read_picture": lambda path: read_image([path / "a_0000.png"]),
    "read_label": lambda path: read_label(path / "a.nrrd"),
    "read_dicom_series": read_dicom_series,
    "write_label": lambda path: write_label(np.zeros((2, 3, 4)), GEOMETRY, path / "a.nii.gz"),
    "write_mha": lambda path: write_label(np.zeros((2, 3, 4)), GEOMETRY, path / "a.mha"),
    "Store.has": lambda path: Store(path).has("a"),
    "Store.names": lambda path: Store(path).names(),
    "Store.open": lambda path: Store(path).open("a"),
}


@pytest.fixture(params=ACCESSES)
def access(request: pytest.FixtureRequest) -> Callable[[Path], Any]:
    return ACCESSES[request.param]


def refusal(access: Callable[[Path], Any], path: Path) -> str:
    """Return the one line in which an access ends; a check may report it as a fault instead."""
    try:
        report = access(path)
    except UserError as error:
        message = str(error)
    else:
        (message,) = report.faults
    assert "\n" not in message
    assert len(message) < 700
    return message


def test_a_directory_without_access(access: Callable[[Path], Any], unprivileged: Path) -> None:
    locked = unprivileged / "locked"
    locked.mkdir(mode=0)
    if access is not find_dataset:  # the directory exists
        assert "permission denied" in refusal(access, locked)
    assert "permission denied" in refusal(access, locked / "inside")


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 4000, "a\0b", "a\ud800"], ids=["name", "path", "null", "surrogate"])
def test_names_that_cannot_exist(access: Callable[[Path], Any], name: str, tmp_path: Path) -> None:
    if access in (ACCESSES["Store.has"], ACCESSES["Store.names"]) and len(name) < 10:
        pytest.skip("nothing has such a name, which is an answer")
    assert refusal(access, tmp_path / name)


def test_a_name_that_is_not_utf8(access: Callable[[Path], Any], tmp_path: Path) -> None:
    """ITK ended the whole process (basic_string::_S_construct null)."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    for name in ("a_0000.nii.gz", "a_0000.png", "a.nrrd", "a.dcm"):
        (folder / name).write_bytes(bytes(200) + b"DICM")
    if access not in (find_dataset, ACCESSES["Store.has"], ACCESSES["Store.names"], ACCESSES["cases_in_folder"]):
        assert refusal(access, folder)


def test_files_whose_names_are_not_utf8_are_named(make_dataset: Callable[..., Path]) -> None:
    raw = make_dataset()
    name = os.fsdecode(b"caf\xe9")
    try:
        shutil.copy(raw / "labelsTr/a.nii.gz", raw / "labelsTr" / f"{name}.nii.gz")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    shutil.copy(raw / "imagesTr/a_0000.nii.gz", raw / "imagesTr" / f"{name}_0000.nii.gz")
    faults = [fault for fault in verify(raw).faults if "numTraining" not in fault]
    assert len(faults) == 2
    assert all("caf?" in fault and "not valid UTF-8. Rename" in fault for fault in faults)


def test_a_case_without_access_is_a_fault_and_the_others_are_checked(
    make_dataset: Callable[..., Path], unprivileged: Path
) -> None:
    raw = make_dataset(unprivileged / "Dataset001_Tiny")
    (raw / "imagesTr" / "b_0000.nii.gz").chmod(0)
    (raw / "labelsTr" / "c.nii.gz").chmod(0)
    faults = verify(raw).faults
    assert len(faults) == 2
    assert "b_0000.nii.gz: cannot be read (permission denied)" in faults[0]
    assert "c.nii.gz: cannot be read (permission denied)" in faults[1]


def test_splits_without_access(make_dataset: Callable[..., Path], unprivileged: Path) -> None:
    (unprivileged / "locked").mkdir(mode=0)
    dataset = load_dataset(make_dataset(unprivileged / "Dataset001_Tiny"))
    with pytest.raises(UserError, match=r"splits\.json: cannot be read \(permission denied\)"):
        load_or_make_splits(dataset, unprivileged / "locked" / "splits.json")


# --- searching for images


@pytest.fixture(autouse=True)
def quick() -> Any:
    started = time.process_time()
    yield
    assert time.process_time() - started < 5


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc here")
@pytest.mark.parametrize("folder", ["/proc", "/dev", "/proc/self", "/sys", "/"])
def test_directories_of_the_system_are_refused_at_once(folder: str) -> None:
    """Some of their files never end, and reading others waits for an event."""
    with pytest.raises(UserError, match=rf"^{folder}.*(no case|no image among|permission denied|no such file)"):
        cases_in_folder(Path(folder), 1, ".nii.gz")


def test_many_other_files_are_not_searched_for_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        (tmp_path / f"{number}.txt").write_text("x" * 200)
    assert dicom_folders(tmp_path) == []
    monkeypatch.setattr(dicom, "MAX_SEARCHED", 20)
    with pytest.raises(UserError, match="no image among the first 20 files. Choose the directory"):
        dicom_folders(tmp_path)


def test_a_pipe_or_socket_among_slices_is_named(
    write_slices: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may have 100 characters
    folder = write_slices(Path("series"))
    assert dicom_folders(Path()) == [folder]
    os.mkfifo(folder / "pipe")
    with pytest.raises(UserError, match="series/pipe: neither a file nor a directory"):
        read_dicom_series(folder)
    (folder / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("series/socket")
        with pytest.raises(UserError, match="series/socket: neither a file nor a directory"):
            read_dicom_series(folder)


def test_slices_without_the_preamble_are_found(write_slices: Callable[..., Path], tmp_path: Path) -> None:
    folder = write_slices(tmp_path / "series")
    for file in folder.iterdir():
        content = file.read_bytes()
        start = content.index(b"\x08\0\x05\0") if b"\x08\0\x05\0" in content else content.index(b"\x08\0\x16\0")
        file.write_bytes(content[start:])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("The patient was moving. " * 20)
    assert dicom_folders(tmp_path) == [folder]
    assert read_dicom_series(folder).array.shape == (1, 4, 6, 5)
