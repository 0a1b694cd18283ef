"""Models on the Hugging Face Hub: `hf://OWNER/NAME`, optionally `@REVISION`."""

import re
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError
    EntryNotFoundError,
    HFValidationError,
    HTTPError,  # of the HTTP library, which differs between versions
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from autocrossdim.system.console import say, warn
from autocrossdim.system.errors import UserError, from_os_error
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


def covers(request: str, weights: str) -> bool:
    """Return whether a request for weights is met by others: by itself, or by a revision of it if it names none."""
    return request == weights or (is_on_hub(request) and weights.startswith(f"{request}@"))


def fetch(model: str) -> HubModel:
    """Return a model of the hub, downloaded unless the cache has this revision.

    If the hub is out of reach, the revision that was downloaded last is used, with a warning.

    Args:
        model: `hf://OWNER/NAME` or `hf://OWNER/NAME@REVISION` with a branch, tag or commit.

    Raises:
        UserError: The name is not of this form, there is no such model or revision, it was not written by
            `autocrossdim export --hub`, the hub refuses access, it is out of reach and the model is not in the cache,
            or the cache cannot be written.
    """
    match = _NAME.fullmatch(model)
    if match is None:
        raise _no_address(model)
    repository, revision = match[1], match[2] or "main"
    try:
        path = _download(repository, revision)
    except HFValidationError:  # such as two dots in the name
        raise _no_address(model) from None
    except LocalEntryNotFoundError as error:  # also an EntryNotFoundError
        path = _from_cache(model, repository, revision, error)
    except EntryNotFoundError:
        raise UserError(
            f"{model}: the repository has no {FILE}, so it is not a model of autocrossdim. Ask its owner to export it "
            "with `export --hub`."
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
    except (HTTPError, OSError, RuntimeError) as error:
        if not _is_out_of_reach(error):
            raise _as_user_error(model, error) from error
        path = _from_cache(model, repository, revision, error)
    name = f"{SCHEME}{repository}@{path.parent.name}"
    if name != model:
        say(f"{model}: revision {path.parent.name}.")
    return HubModel(path, name)


def _no_address(model: str) -> UserError:
    return UserError(
        f"{printable(model)}: not an address on the hub. Use hf://OWNER/NAME, or hf://OWNER/NAME@REVISION with a "
        "branch, tag or commit."
    )


def _download(repository: str, revision: str) -> Path:
    """Return the file of a revision in the cache, in a directory that is named after the commit."""
    cached = try_to_load_from_cache(repository, FILE, revision=revision)
    if isinstance(cached, str) and Path(cached).parent.name == revision:  # a commit, which never changes
        return Path(cached)
    # Asked first, because the download retries for half a minute before it gives up.
    get_hf_file_metadata(hf_hub_url(repository, FILE, revision=revision), timeout=_SECONDS)
    return Path(hf_hub_download(repository, FILE, revision=revision))


def _is_out_of_reach(error: Exception) -> bool:
    """Return whether there is no connection to the hub, or the hub itself fails or is overloaded."""
    response = getattr(error, "response", None)
    if response is not None:
        return bool(response.status_code >= 500 or response.status_code == 429)  # too many requests
    if isinstance(error, OSError):  # with a number, it is an error of this computer, such as a full disk
        return error.errno is None or isinstance(error, ConnectionError | TimeoutError)
    return isinstance(error, HTTPError)


def _as_user_error(model: str, error: Exception) -> UserError:
    """Return the message for an error that a connection to the hub would not remedy."""
    if getattr(error, "response", None) is None and isinstance(error, OSError):
        return from_os_error(error, action="written")
    return UserError(
        f"{model}: cannot be downloaded from the hub ({_reason(error)}). Check your access to the repository and the "
        "free space in $HF_HOME, then try again."
    )


def _reason(error: Exception) -> str:
    return printable((str(error).splitlines() or [type(error).__name__])[0])


def _from_cache(model: str, repository: str, revision: str, error: Exception) -> Path:
    """Return the file that was downloaded last for a revision.

    Raises:
        UserError: It is not in the cache.
    """
    reason = _reason(error)
    cached = try_to_load_from_cache(repository, FILE, revision=revision)
    if not isinstance(cached, str):
        raise UserError(
            f"{model}: cannot be downloaded from the hub ({reason}), and no copy is in the cache. On a computer with "
            f"access to the hub, run `hf download {repository} {FILE} --revision {revision} --local-dir .`, copy "
            f"{FILE} here, and give its path instead."
        ) from error
    warn(f"{model}: the hub could not be asked for a newer revision ({reason}). The copy in the cache is used.")
    return Path(cached)
