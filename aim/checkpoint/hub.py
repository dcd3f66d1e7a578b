"""Fetch a released model from the hub, or find it in the cache; every failure names the repository and the way out.

huggingface_hub does the work and honours its own variables: HF_ENDPOINT, HF_HOME, HF_HUB_CACHE, HF_HUB_OFFLINE, HF_TOKEN.
"""

from __future__ import annotations

from pathlib import Path

from aim.checkpoint.official import CONFIG, WEIGHTS
from aim.errors import HubError
from aim.settings import Settings


def fetch(repo: str) -> Path:
    """The folder with config.json and model.safetensors of hub repository ``repo`` ("owner/name"), of one commit.

    Downloads what the cache does not have; without a connection a cached copy is used. HubError otherwise.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    endpoint = Settings.from_env().hub or constants.ENDPOINT
    # Whatever goes wrong here, the transport's many exceptions included, is the same to a user: no model. The download
    # alone would retry a dead connection for half a minute before it said so, hence the look ahead.
    try:
        get_hf_file_metadata(hf_hub_url(repo, CONFIG, endpoint=endpoint), endpoint=endpoint)
    except Exception as error:
        cached = _cached(repo)
        if cached is not None:
            return cached
        raise HubError(_unreachable(repo, endpoint, error)) from error
    try:
        config = Path(hf_hub_download(repo, CONFIG, endpoint=endpoint))
        hf_hub_download(repo, WEIGHTS, revision=config.parent.name, endpoint=endpoint)
    except Exception as error:
        raise HubError(_broken_off(repo, endpoint, error)) from error
    return config.parent


def _cached(repo: str) -> Path | None:
    """The folder of the last commit seen, where both files were fetched whole."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        config = try_to_load_from_cache(repo, CONFIG)
    except HFValidationError:
        return None
    if not isinstance(config, str) or not (Path(config).parent / WEIGHTS).is_file():
        return None
    return Path(config).parent


def _unreachable(repo: str, endpoint: str, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return f"{repo} asks for its terms to be accepted: do so at {endpoint}/{repo}, then log in with `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub at {endpoint} has no model {repo!r}, or it is private: check the name, or log in with `hf auth login`"
    if isinstance(error, errors.EntryNotFoundError):
        return _lacks(repo, CONFIG)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{repo} is not in the cache and offline mode is on: unset HF_HUB_OFFLINE to fetch it"
    if isinstance(error, errors.HfHubHTTPError):
        return f"the hub at {endpoint} refused {repo} ({_brief(error)}): try again later"
    return f"the hub at {endpoint} is out of reach and {repo} is not in the cache ({_brief(error)}): check the connection and try again"


def _broken_off(repo: str, endpoint: str, error: Exception) -> str:
    from huggingface_hub import errors

    if isinstance(error, errors.RemoteEntryNotFoundError):
        return _lacks(repo, WEIGHTS)
    return (
        f"the download of {repo} from {endpoint} broke off ({_brief(error)}): try again; "
        "files fetched whole are kept, and no part of a file is taken for the whole"
    )


def _lacks(repo: str, name: str) -> str:
    return f"{repo} has no {name}: it is not in the layout of AiM's released models, {CONFIG} and {WEIGHTS}"


def _brief(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
