"""A model to a hub, with a card, so that ``load_model`` of its repository gives the same."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from aim._version import __version__
from aim.checkpoint.card import card
from aim.checkpoint.describe import facts
from aim.checkpoint.export import LLAMAGEN, OURS, check_layout, write_layout
from aim.checkpoint.hub import brief
from aim.checkpoint.load import HUB_ID, load_model
from aim.checkpoint.torch_file import NOTHING, Told
from aim.checks import quoted
from aim.errors import HubError, InvalidInput
from aim.settings import Settings

CARD = "README.md"


def push(
    source: str | Path,
    repo: str,
    layout: str = OURS,
    storage: str | None = None,
    license: str | None = None,
    private: bool = False,
    told: Told = NOTHING,
) -> str:
    """Write the model ``source`` as ``export`` does, with a card, into the repository ``repo`` of
    the hub, "owner/name", which is made if it is not there; the address of what was written.

    It is one commit: a repository has all of it or what it had before. Whose it is is
    huggingface_hub's to know (HF_TOKEN, or ``hf auth login``). InvalidInput, or an error of
    ``load_model``, before anything is sent; HubError where the hub cannot be written to.
    """
    from huggingface_hub import HfApi, constants

    if not HUB_ID.fullmatch(repo):
        raise InvalidInput(f"repository is {quoted(repo)}; it must be owner/name")
    if layout == LLAMAGEN:
        raise InvalidInput(
            f"a repository in the layout {layout!r} says nothing of its models; take {OURS!r}"
        )
    loaded = load_model(source, told=told)
    check_layout(layout, loaded)
    about = card(repo, facts(loaded, source), layout, license)
    endpoint = Settings.from_env().hub or constants.ENDPOINT
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_layout(loaded, source, folder, layout, storage)
        (folder / CARD).write_text(about, encoding="utf-8")
        del loaded
        said = f"{Path(str(source)).name}, with aim {__version__}"
        try:
            api = HfApi(endpoint=endpoint)
            api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=folder, commit_message=said)
        # whatever the transport raises, to a user it is not there
        except Exception as error:
            raise HubError(_refused(repo, endpoint, error)) from error
    return f"{endpoint}/{repo}"


def _refused(repo: str, endpoint: str, error: Exception) -> str:
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", 0)
    if status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError):
        return (
            f"the hub at {endpoint} does not let you write to {repo}: log in with `hf auth login`, "
            "or set HF_TOKEN to a token that may write"
        )
    return (
        f"{repo} was not written to the hub at {endpoint} ({brief(error)}): try again; it has all "
        "of a model or what it had before"
    )
