"""The envelope of a model file: a plain zip in which every byte is checked before anything in it is parsed.

Members are stored, not compressed: trained weights hardly shrink (by 7 %), and what is stored can never be larger
inside than the file is outside. Nothing is ever extracted; members are read in memory, by name. The zip's comment ends
with the SHA-256 of everything before it, and `manifest.json` holds size and SHA-256 of each member. That finds damage;
it does not tell who made the file.
"""

import hashlib
import json
import struct
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autocrossdim.system.errors import UserError, first_fault, from_os_error
from autocrossdim.system.files import written_whole

FORMAT_VERSION: Literal[1] = 1
MANIFEST = "manifest.json"
MANIFEST_BYTES = 1024**2  # a hundred members need 15 kB

_SEAL = b"autocrossdim model, SHA-256 of everything before: "
_DIGITS = 64  # of the SHA-256, which are the last bytes of the file
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a zip's earliest time, so that the same content gives the same bytes
_UNIX = 3
_REGULAR_FILE = 0o100644 << 16


class Member(BaseModel):
    """`size` (bytes) and `sha256` of a member."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    size: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class Manifest(BaseModel):
    """The members of a file, except for the manifest itself.

    Attributes:
        format: Kind of file.
        version: Version of the format.
        program: Version of autocrossdim that wrote the file.
        members: Members by name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["autocrossdim model"]
    version: Literal[1]
    program: str
    members: dict[str, Member]


def write_archive(path: Path, members: Iterable[tuple[str, bytes]], program: str) -> None:
    """Write members one after another, and their manifest; the same content gives the same bytes.

    Args:
        path: Path of the file.
        members: Name and content of each member.
        program: Version of autocrossdim.

    Raises:
        UserError: The file cannot be written.
    """
    entries: dict[str, Member] = {}
    with written_whole(path) as temporary, temporary.open("w+b") as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
            for name, content in members:
                assert name not in entries, f"{name} is written twice"
                entries[name] = Member(size=len(content), sha256=hashlib.sha256(content).hexdigest())
                archive.writestr(_entry(name), content)
            entries = dict(sorted(entries.items()))
            manifest = Manifest(format="autocrossdim model", version=FORMAT_VERSION, program=program, members=entries)
            archive.writestr(_entry(MANIFEST), manifest.model_dump_json(indent=2) + "\n")
            archive.comment = _SEAL + b"0" * _DIGITS
        stream.seek(0)
        seal = _digest(stream, stream.seek(0, 2) - _DIGITS)
        stream.seek(-_DIGITS, 2)
        stream.write(seal)


@dataclass(frozen=True)
class Archive:
    """A file whose seal and structure were checked.

    Attributes:
        path: Path of the file.
        manifest: Its members.
    """

    path: Path
    manifest: Manifest

    @classmethod
    def open(cls, path: Path) -> "Archive":
        """Check the whole file and read its manifest.

        Raises:
            UserError: The file does not exist, is not a model file, is damaged or cut off, or has another version.
        """
        path = Path(path)
        try:
            with path.open("rb") as stream:
                _check_seal(path, stream)
                with _zip(path, stream) as archive:
                    return cls(path, _manifest(path, archive))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file.") from None
        except OSError as error:
            raise from_os_error(error, path, "read") from error

    def read(self, name: str, limit: int) -> bytes:
        """Return the content of a member.

        Args:
            name: As in the manifest.
            limit: Bytes that such a member may have at most.

        Raises:
            UserError: The member is missing, too large, or not what the manifest says.
        """
        if name not in self.manifest.members:
            raise UserError(f"{self.path}: contains no {name}. {AGAIN}")
        member = self.manifest.members[name]
        if member.size > limit:
            raise UserError(f"{self.path}: {name} has {member.size} bytes, but at most {limit} are allowed. {AGAIN}")
        try:
            with self.path.open("rb") as stream, _zip(self.path, stream) as archive:
                content = archive.read(name)
        except (*_ZIP_ERRORS, OSError) as error:
            raise UserError(f"{self.path}: {name} cannot be read. {AGAIN}") from error
        if len(content) != member.size or hashlib.sha256(content).hexdigest() != member.sha256:
            raise UserError(f"{self.path}: {name} does not match the manifest. {AGAIN}")
        return content


AGAIN = "Copy or export it again."

# All that Python's zipfile raises on files that are none, or that were made to confuse it.
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    struct.error,
)


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.create_system = _UNIX
    entry.external_attr = _REGULAR_FILE
    return entry


def _digest(stream: BinaryIO, size: int) -> bytes:
    """SHA-256 of the first `size` bytes, as it stands in the file."""
    sha256 = hashlib.sha256()
    stream.seek(0)
    while size > 0 and (block := stream.read(min(size, 1 << 20))):
        sha256.update(block)
        size -= len(block)
    return sha256.hexdigest().encode()


def _check_seal(path: Path, stream: BinaryIO) -> None:
    if stream.read(4) != b"PK\x03\x04":
        raise UserError(f"{path}: not a model file written by `autocrossdim export`.")
    size = stream.seek(0, 2) - _DIGITS
    stream.seek(max(0, size))
    if stream.read() != _digest(stream, size):
        raise UserError(f"{path}: damaged, cut off, or not a model file: its checksum does not match. {AGAIN}")


def _zip(path: Path, stream: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(stream)
    except _ZIP_ERRORS as error:
        raise UserError(f"{path}: not a readable zip ({error}). {AGAIN}") from error


def _manifest(path: Path, archive: zipfile.ZipFile) -> Manifest:
    """Refuse every entry that `write_archive` would not have written; return what the manifest says of the others."""
    entries = archive.infolist()
    for entry in entries:
        plain = _entry(entry.filename)
        if (
            entry.orig_filename != entry.filename
            or entry.compress_type != zipfile.ZIP_STORED
            or entry.file_size != entry.compress_size
            or entry.flag_bits  # encrypted, of a size not known beforehand, with a name that is not ASCII
            or (entry.create_system, entry.external_attr) != (plain.create_system, plain.external_attr)
        ):
            raise UserError(f"{path}: {entry.orig_filename!a} is not a plain stored file. {AGAIN}")
    names = [entry.filename for entry in entries]
    if len({name.casefold() for name in names}) != len(names):
        raise UserError(f"{path}: two members have the same name. {AGAIN}")
    found = {entry.filename: entry.file_size for entry in entries}
    size = found.pop(MANIFEST, None)
    if size is None or size > MANIFEST_BYTES:
        raise UserError(f"{path}: not a model file written by `autocrossdim export`: it has no {MANIFEST}.")
    try:
        content = json.loads(archive.read(MANIFEST))
    except (*_ZIP_ERRORS, OSError) as error:
        raise UserError(f"{path}: {MANIFEST} cannot be read. {AGAIN}") from error
    version = content.get("version") if isinstance(content, dict) else None
    if version != FORMAT_VERSION:
        raise UserError(
            f"{path}: a model file of version {str(version)[:20]!a}, but this program reads version {FORMAT_VERSION}. "
            "Export it again with this program, or update it."
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {MANIFEST} is not valid ({first_fault(error)}). {AGAIN}") from error
    declared = {name: member.size for name, member in manifest.members.items()}
    for name in sorted(declared.keys() | found.keys()):
        if declared.get(name) != found.get(name):
            raise UserError(f"{path}: {name!a} does not match the manifest. {AGAIN}")
    return manifest
