"""Models on the Hugging Face Hub: `hf://OWNER/NAME`, optionally `@REVISION`."""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from autocrossdim.system.console import say, warn
from autocrossdim.system.errors import UserError
from autocrossdim.system.text import printable

SCHEME = "hf://"
FILE = "model.acd"  # name of the model file in a repository

_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", re.ASCII)
_SECONDS = 5.0  # to wait for the hub before the cache is used


@dataclass(frozen=True)
class HubModel:
    """A model file from the hub.

    Attributes:
        path: The file in the cache of huggingface_hub.
        name: `hf://OWNER/NAME@COMMIT`, which always means this file.
    """

    path: Path
    name: str


def is_on_hub(model: object) -> bool:
    """Return whether a model or starting weights are named by their address on the hub."""
    return str(model).startswith(SCHEME)


def fetch(model: str) -> HubModel:
    """Return a model of the hub, downloaded unless the cache has this revision.

    Without a connection, the revision that was downloaded last is used, with a warning.

    Args:
        model: `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION` with a branch, tag or commit.

    Raises:
        UserError: The name is not of this form, there is no such model or revision, it was not written by
            `autocrossdim export --hub`, or the hub cannot be reached and the model is not in the cache.
    """
    match = _NAME.fullmatch(model)
    if match is None:
        raise UserError(
            f"{printable(model)}: not an address on the hub. Use hf://OWNER/NAME, or hf://OWNER/NAME@REVISION with a "
            "branch, tag or commit."
        )
    repository, revision = match[1], match[2] or "main"
    try:
        path = _download(repository, revision)
    except LocalEntryNotFoundError as error:  # also an EntryNotFoundError
        path = _from_cache(model, repository, revision, error)
    except EntryNotFoundError:
        raise UserError(
            f"{model}: the repository has no {FILE}, so it is not a model of autocrossdim. Choose another one."
        ) from None
    except RevisionNotFoundError:
        raise UserError(
            f"{model}: the repository has no revision '{revision}'. Name one of its branches, tags or commits."
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{model}: there is no such model on the hub, or it is private or gated. Check the name, or log in with "
            "`hf auth login`."
        ) from None
    except Exception as error:  # the hub's client raises its own, its HTTP library's and the system's errors
        path = _from_cache(model, repository, revision, error)
    name = f"{SCHEME}{repository}@{path.parent.name}"
    say(f"{model}: revision {path.parent.name}.")
    return HubModel(path, name)


def _download(repository: str, revision: str) -> Path:
    """Return the file of a revision in the cache, in a directory that is named after the commit."""
    cached = try_to_load_from_cache(repository, FILE, revision=revision)
    if isinstance(cached, str) and Path(cached).parent.name == revision:  # a commit, which never changes
        return Path(cached)
    # Asked first, because the download retries for half a minute before it gives up.
    get_hf_file_metadata(hf_hub_url(repository, FILE, revision=revision), timeout=_SECONDS)
    return Path(hf_hub_download(repository, FILE, revision=revision))


def _from_cache(model: str, repository: str, revision: str, error: Exception) -> Path:
    """Return the file that was downloaded last for a revision.

    Raises:
        UserError: It is not in the cache.
    """
    reason = printable((str(error).splitlines() or [type(error).__name__])[0])
    cached = try_to_load_from_cache(repository, FILE, revision=revision)
    if not isinstance(cached, str):
        raise UserError(
            f"{model}: cannot be downloaded from the hub ({reason}), and no copy is in the cache. On a computer with "
            f"access to the hub, run `hf download {repository} {FILE} --revision {revision} --local-dir .`, copy "
            f"{FILE} here, and give its path instead."
        ) from error
    warn(f"{model}: the hub could not be asked for a newer revision ({reason}). The copy in the cache is used.")
    return Path(cached)
