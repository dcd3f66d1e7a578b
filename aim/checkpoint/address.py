"""Addresses of the hub, as a browser shows them, as what they mean here."""

from __future__ import annotations

import re
from pathlib import Path

from aim.config import LLAMAGEN, MODELS
from aim.errors import InvalidInput
from aim.settings import Settings

SITES = ("huggingface.co", "www.huggingface.co", "hf.co")
ADDRESS = re.compile(
    r"https?://(?P<site>[^/]+)/(?P<repo>[^/?#]+/[^/?#]+)"
    r"(/(tree|blob|resolve)/(?P<revision>[^/?#]+)(/(?P<file>[^?#]+?))?)?/?([?#].*)?"
)
WHOLE = re.compile(r"config\.json|README\.md|(model|tokenizer)[\w.-]*\.safetensors(\.index\.json)?")


def named(source: str | Path) -> str | Path:
    """The name or hub id that an address of the hub means; anything else as it is.

    InvalidInput for an address of another site, of another revision than main, or of a file that
    is no model by itself.
    """
    if isinstance(source, Path) or not re.match("https?:", source):
        return source
    found = ADDRESS.fullmatch(source)
    own = re.sub("^https?://", "", Settings.from_env().hub)
    if not found or found["site"] not in (*SITES, own):
        raise InvalidInput(
            f"{source!r} is no address of a model on the hub (https://huggingface.co/owner/name): "
            "download the file and give its path"
        )
    repo, file = found["repo"], found["file"]
    if found["revision"] not in (None, "main"):
        raise InvalidInput(
            f"{source!r} is of the revision {found['revision']}; only main is read: download the "
            "files and give their folder"
        )
    if file and repo == LLAMAGEN:
        names = {spec.file: name for name, spec in MODELS.items() if spec.repo == LLAMAGEN}
        if file not in names:
            raise InvalidInput(
                f"{source!r} is none of the models that are known there, {', '.join(names)}"
            )
        return names[file]
    if file and not WHOLE.fullmatch(file):
        raise InvalidInput(
            f"{source!r} is one file of {repo}: download it (hf download {repo} {file}) and give "
            "its path"
        )
    return repo
