import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autocrossdim.models.archive import Archive, write_archive
from autocrossdim.system.errors import UserError

MEMBERS = [("plan.json", b'{"a": 1}'), ("weights/dx/fold_0.safetensors", bytes(range(200)))]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.acd"
    write_archive(path, MEMBERS, "1.2")
    return path


def refused(path: Path, reading: str | None = None) -> str:
    """The one line that opening (and reading a member) ends with; it names the file."""
    with pytest.raises(UserError) as caught:
        archive = Archive.open(path)
        assert reading is not None
        archive.read(reading, 1000)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_members_come_back(file: Path) -> None:
    archive = Archive.open(file)
    assert {name: archive.read(name, 1000) for name, _ in MEMBERS} == dict(MEMBERS)
    assert archive.manifest.program == "1.2"


def test_any_program_can_look_into_it(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*(name for name, _ in MEMBERS), "manifest.json"]


def test_the_same_content_gives_the_same_bytes(file: Path, tmp_path: Path) -> None:
    again = tmp_path / "later.acd"
    write_archive(again, iter(MEMBERS), "1.2")
    assert again.read_bytes() == file.read_bytes()


def test_nothing_is_left_of_a_file_whose_members_fail_to_come(tmp_path: Path) -> None:
    def members() -> Any:
        yield MEMBERS[0]
        raise UserError("the second fold is damaged")

    with pytest.raises(UserError, match="second fold"):
        write_archive(tmp_path / "model.acd", members(), "1")
    assert not list(tmp_path.iterdir())


def test_a_change_of_any_byte_is_noticed(file: Path) -> None:
    content = file.read_bytes()
    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 1 << (position % 8)
        file.write_bytes(changed)
        refused(file)


def test_a_file_cut_off_anywhere_is_noticed(file: Path) -> None:
    content = file.read_bytes()
    for length in range(len(content)):
        file.write_bytes(content[:length])
        refused(file)
    file.write_bytes(content + b"more")
    assert "checksum" in refused(file)


def test_what_is_no_model_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "other.acd"
    assert "no such file" in refused(path)
    path.write_bytes(b"\x93NUMPY")
    assert "not a model file" in refused(path)
    path.unlink()
    path.mkdir()
    assert "cannot be read" in refused(path)


def manifest(**changes: Any) -> dict[str, Any]:
    known = {"plan.json": {"size": 2, "sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"}}
    return {"format": "autocrossdim model", "version": 1, "program": "1", "members": known, **changes}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"version": 2}, "version '2'"),
        ({"version": None}, "version"),
        ({"format": "another"}, "format"),
        ({"more": 1}, "more"),
        ({"members": {}}, "plan.json"),
        ({"members": {"plan.json": {"size": 3, "sha256": "0" * 64}}}, "plan.json"),
        ({"members": {"plan.json": {"size": -1, "sha256": "0" * 64}}}, "size"),
        ({"members": {**manifest()["members"], "best.json": {"size": 2, "sha256": "0" * 64}}}, "best.json"),
    ],
)
def test_a_forged_manifest_is_refused(forged: Any, tmp_path: Path, changed: dict[str, Any], named: str) -> None:
    path = forged(tmp_path / "model.acd", [("plan.json", b"{}")], manifest())
    assert Archive.open(path).read("plan.json", 2) == b"{}"  # the forger's tools work
    assert named in refused(forged(path, [("plan.json", b"{}")], manifest(**changed)))


def test_a_manifest_that_is_none_is_refused(forged: Any, tmp_path: Path) -> None:
    path = tmp_path / "model.acd"
    refused(forged(path, [("plan.json", b"{}")]))
    for content in (b"", b"[]", b"\xff", b"[" * 100_000, b'{"version": ' + b"9" * 10_000 + b"}", b" " * 2**21):
        refused(forged(path, [("plan.json", b"{}")], content))


def test_content_that_is_not_the_manifests_is_refused_by_name(forged: Any, tmp_path: Path) -> None:
    path = forged(tmp_path / "model.acd", [("plan.json", b"[]")], manifest())
    assert "plan.json" in refused(path, reading="plan.json")


def test_a_member_larger_than_makes_sense_is_not_read(file: Path) -> None:
    with pytest.raises(UserError, match=r"model\.acd: plan\.json has 8 bytes, but at most 7"):
        Archive.open(file).read("plan.json", 7)


@pytest.mark.parametrize("name", ["../plan.json", "/plan.json", "C:\\plan.json", "PLAN.JSON", "plan.json\0.exe", "x/"])
def test_names_that_lead_elsewhere_are_refused(forged: Any, tmp_path: Path, name: str) -> None:
    entry = zipfile.ZipInfo("plan.json")
    entry.filename, entry.create_system, entry.external_attr = name, 3, 0o100644 << 16
    refused(forged(tmp_path / "model.acd", [("plan.json", b"{}"), (entry, b"{}")], manifest()))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_members_of_one_name_are_refused(forged: Any, tmp_path: Path) -> None:
    path = forged(tmp_path / "model.acd", [("plan.json", b"{}"), ("plan.json", b"[]")], manifest())
    assert "same name" in refused(path)


def test_a_link_is_refused(forged: Any, tmp_path: Path) -> None:
    link = zipfile.ZipInfo("plan.json")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    assert "plain" in refused(forged(tmp_path / "model.acd", [(link, b"/etc/passwd")], manifest()))


def test_a_zip_bomb_is_refused_unopened(forged: Any, tmp_path: Path) -> None:
    bomb = zipfile.ZipInfo("plan.json")
    bomb.create_system, bomb.external_attr, bomb.compress_type = 3, 0o100644 << 16, zipfile.ZIP_DEFLATED
    path = forged(tmp_path / "model.acd", [(bomb, bytes(2**24))], manifest())
    assert path.stat().st_size < 2**16
    assert "plain" in refused(path)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), min_size=1, max_size=5))
def test_whatever_is_forged_ends_in_a_clear_error_or_in_the_manifests_content(
    file: Path, resealed: Callable[[bytes], bytes], changes: list[tuple[int, int]]
) -> None:
    write_archive(file, MEMBERS, "1.2")
    content = bytearray(file.read_bytes())
    for position, value in changes:
        content[position % (len(content) - 64)] = value
    path = file.with_name("forged.acd")
    path.write_bytes(resealed(bytes(content)))
    message, read = None, None
    try:
        archive = Archive.open(path)
        read = {name: archive.read(name, 1000) for name in archive.manifest.members}
    except UserError as error:
        message = str(error)
    if read is None:
        assert message is not None
        assert message.startswith(f"{path}: ")
    else:
        assert sorted(read.values()) == sorted(dict(MEMBERS).values())


def test_the_manifest_can_be_read_by_people(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        content = json.loads(archive.read("manifest.json"))
    assert content["members"]["plan.json"]["size"] == 8
