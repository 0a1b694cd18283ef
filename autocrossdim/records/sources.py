"""Versions of source files: how a corrected image or label is noticed without reading every file again."""

import json
import time
from collections.abc import Sequence
from hashlib import blake2b, file_digest
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from autocrossdim.system.files import reading

DIGEST_BYTES = 16
SETTLED_NS = 2 * 10**9  # the coarsest time stamps in use are those of FAT, 2 s
NEVER = -1  # a time that no file has, so that its content is compared


class FileVersion(BaseModel):
    """One version of one file.

    Attributes:
        name: File name without its directory, so that a dataset may be moved.
        size: Size in bytes.
        modified_ns: Time of the last change in nanoseconds; `NEVER` if the file had just been changed, because
            another change within the clock's resolution would leave the same time.
        content: Digest of the content (BLAKE2b, hexadecimal).
    """

    model_config = ConfigDict(frozen=True)

    name: str
    size: int
    modified_ns: int
    content: str


def file_versions(paths: Sequence[Path], known: Sequence[FileVersion] = ()) -> tuple[FileVersion, ...]:
    """Return the present version of each file.

    A file is read only if its size or time differs from the known version.

    Args:
        paths: Files of one case, in a fixed order.
        known: Their versions when they were last looked at; empty if never.

    Raises:
        UserError: A file is missing or cannot be read.
    """
    before = known if len(known) == len(paths) else (None,) * len(paths)
    return tuple(_version(path, version) for path, version in zip(paths, before, strict=True))


def _version(path: Path, known: FileVersion | None) -> FileVersion:
    with reading(path):
        status = path.stat()
        if known is not None and (known.size, known.modified_ns) == (status.st_size, status.st_mtime_ns):
            return known
        # The time is taken before the content, so that a change in between is noticed the next time.
        settled = time.time_ns() - status.st_mtime_ns > SETTLED_NS
        with path.open("rb") as file:
            content = file_digest(file, lambda: blake2b(digest_size=DIGEST_BYTES)).hexdigest()
    return FileVersion(
        name=path.name,
        size=status.st_size,
        modified_ns=status.st_mtime_ns if settled else NEVER,
        content=content,
    )


def contents(
    versions: Sequence[FileVersion], images: int, annotated_labels: Sequence[str] | None = None
) -> frozenset[str]:
    """Return the digests by which a case is recognised after it was renamed: of its images, and of all its files.

    Args:
        versions: Versions of the files of one case, the images first; empty if they are unknown.
        images: Number of image files.
        annotated_labels: As for `content_hash`.
    """
    if not versions:
        return frozenset()
    return frozenset({content_hash(versions[:images]), content_hash(versions, annotated_labels)})


def content_hash(versions: Sequence[FileVersion], annotated_labels: Sequence[str] | None = None) -> str:
    """Return one digest of the contents of several files, in their order, and of the labels annotated in them.

    Args:
        versions: Versions of the files of one case.
        annotated_labels: Names of the labels that were annotated; None if all were.
    """
    content = "".join(version.content for version in versions)
    content += "" if annotated_labels is None else json.dumps(list(annotated_labels))
    return blake2b(content.encode(), digest_size=DIGEST_BYTES).hexdigest()
