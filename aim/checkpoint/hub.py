"""Fetch a model from the hub, or find it in the cache; every failure names the repository
and the way out.

huggingface_hub does the work and honours its own variables: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE,
HF_HUB_OFFLINE, HF_TOKEN.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from inspect import signature
from pathlib import Path
from typing import Any, NamedTuple

from aim.checkpoint.shards import INDEX
from aim.errors import CheckpointError, HubError
from aim.settings import Limits, Settings


class HubModel(NamedTuple):
    """A model on the hub."""

    repo: str  # "owner/name"
    files: tuple[str, ...]  # that make it
    layout: str  # whose: "AiM's"
    # what else does, and whether it must, by the files in a folder, which has each that there is
    # when the next is asked for
    rest: Callable[[Path], Iterable[tuple[str, bool]]] = lambda folder: ()


PIECE = 2**16  # bytes
_stopped: set[str] = set()  # repositories whose download is to end
_fetched: dict[str, int] = {}  # bytes of a repository that came over the wire, for those who wait


def fetched(repo: str) -> int:
    """Bytes of a repository that this process has downloaded so far; 0 for one that it found in the
    cache.
    """
    return _fetched.get(repo, 0)


def stop(repo: str) -> None:
    """Let a download of a repository end with the next piece that comes."""
    _stopped.add(repo)


def _counting(repo: str) -> Any:
    """The progress bar of huggingface_hub, which also counts the bytes for ``fetched``, and ends a
    download that takes too long or was stopped.
    """
    from huggingface_hub import constants, utils

    usual: Any = utils.tqdm  # type: ignore[attr-defined]
    # between two pieces it can end; of 10 MB each, one that trickles would not for hours
    constants.DOWNLOAD_CHUNK_SIZE = min(constants.DOWNLOAD_CHUNK_SIZE, PIECE)
    seconds = _most_seconds()
    end = time.monotonic() + seconds
    _stopped.discard(repo)

    def update(bar: Any, n: float | None = 1) -> bool | None:
        if repo in _stopped:
            raise HubError("it was stopped")
        if time.monotonic() > end:
            raise HubError(f"it took over {seconds / 60:g} minutes")
        _fetched[repo] = _fetched.get(repo, 0) + int(n or 0)
        moved: bool | None = usual.update(bar, n)
        return moved

    return type("Bar", (usual,), {"update": update})


def _most_seconds() -> float:
    return 60.0 * Limits.from_env().download_minutes


def fetch(model: HubModel) -> Path:
    """The folder with the model's files, all of one commit.

    Downloads what the cache does not have, within AIM_DOWNLOAD_MINUTES; without a connection a
    cached copy is used. HubError otherwise.
    """
    from huggingface_hub import (
        constants,
        errors,
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
    )

    repo, first = model.repo, model.files[0]
    endpoint = Settings.from_env().hub or constants.ENDPOINT
    # Whatever goes wrong here, the transport's many exceptions included, is the same to a user: no
    # model. The download alone would retry a dead connection for half a minute before it said so,
    # hence the look ahead.
    try:
        get_hf_file_metadata(hf_hub_url(repo, first, endpoint=endpoint), endpoint=endpoint)
    except Exception as error:
        cached = _cached(model)
        if cached is not None:
            return cached
        raise HubError(_unreachable(model, endpoint, error)) from error
    name = first
    try:
        settings: dict[str, Any] = {"endpoint": endpoint}
        if "tqdm_class" in signature(hf_hub_download).parameters:
            settings["tqdm_class"] = _counting(repo)
        folder = Path(hf_hub_download(repo, first, **settings)).parent
        for name, needed in _others(model, folder):
            try:
                hf_hub_download(repo, name, revision=folder.name, **settings)
            except errors.RemoteEntryNotFoundError:
                if needed:
                    raise
    except CheckpointError:  # of a file that is there
        raise
    except Exception as error:
        raise HubError(_broken_off(model, name, endpoint, error)) from error
    return folder


def _others(model: HubModel, folder: Path) -> Iterator[tuple[str, bool]]:
    """Names of all files but the first, and whether they must be there; the reader lets each be
    there before it asks for more.
    """
    yield from ((name, True) for name in model.files[1:])
    yield from model.rest(folder)


def _cached(model: HubModel) -> Path | None:
    """The folder of the last commit seen, where every file was fetched whole."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        first = try_to_load_from_cache(model.repo, model.files[0])
    except HFValidationError:
        return None
    if not isinstance(first, str):
        return None
    folder = Path(first).parent
    whole = all((folder / name).is_file() for name, needed in _others(model, folder) if needed)
    return folder if whole else None


def _unreachable(model: HubModel, endpoint: str, error: Exception) -> str:
    from huggingface_hub import errors

    repo = model.repo
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{repo} asks for its terms to be accepted: do so at {endpoint}/{repo}, then log in "
            "with `hf auth login`"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"the hub at {endpoint} has no model {repo!r}, or it is private: check the name, or "
            "log in with `hf auth login`"
        )
    if isinstance(error, errors.EntryNotFoundError):
        return _lacks(model, model.files[0])
    if isinstance(error, errors.OfflineModeIsEnabled):
        return (
            f"{repo} is not in the cache and offline mode is on: unset HF_HUB_OFFLINE to fetch it"
        )
    if isinstance(error, errors.HfHubHTTPError):
        return f"the hub at {endpoint} refused {repo} ({brief(error)}): try again later"
    return (
        f"the hub at {endpoint} is out of reach and {repo} is not in the cache ({brief(error)}): "
        "check the connection and try again"
    )


def _broken_off(model: HubModel, name: str, endpoint: str, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.RemoteEntryNotFoundError):
        return _lacks(model, name)
    return (
        f"the download of {model.repo} from {endpoint} broke off ({brief(error)}): try again; "
        "files fetched whole are kept, and no part of a file is taken for the whole"
    )


def _lacks(model: HubModel, name: str) -> str:
    name = name.removesuffix(INDEX)  # of a file that is not there whole either
    files = " and ".join(dict.fromkeys((*model.files, name)))
    ours = "" if model.files[1:] else ", nor in that of `aim push`"
    return f"{model.repo} has no {name}: it is not in {model.layout} official layout, {files}{ours}"


def brief(error: Exception) -> str:
    """The first line of what an error of the hub's says, without the token that was sent."""
    from huggingface_hub import get_token

    said = (str(error).strip().splitlines() or [type(error).__name__])[0]
    token = get_token()
    return said.replace(token, "...") if token else said
