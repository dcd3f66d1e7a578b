"""``load_model``: from a name, a folder, a file or a hub id to a model and its tokenizer."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

from aim.checkpoint.address import named
from aim.checkpoint.hub import HubModel, fetch
from aim.checkpoint.llamagen import TOKENIZER, is_llamagen, load_llamagen, tokenizer_beside
from aim.checkpoint.official import CONFIG, WEIGHTS, load_official
from aim.checkpoint.ours import (
    TOKENIZER_FILE,
    TOKENIZERS,
    is_prior,
    is_pushed,
    load_prior,
    load_tokenizer,
)
from aim.checkpoint.shards import INDEX, is_there, parts, whole
from aim.checkpoint.torch_file import NOTHING, SUFFIXES, Told
from aim.checkpoint.weights import read_metadata
from aim.config import LLAMAGEN, MODELS, GPTConfig
from aim.errors import CheckpointError, InvalidInput
from aim.models.prior import Prior, misfit
from aim.models.vq.model import VQ
from aim.settings import Settings

DTYPES = (torch.float32, torch.bfloat16)
FILES = (".safetensors", *SUFFIXES)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Loaded(NamedTuple):
    """What ``load_model`` returns, ready for inference."""

    model: Prior
    tokenizer: VQ
    name: str  # as asked for; of a file or folder, its own name
    version: str  # 12 hex digits that change with the weights


def load_model(
    source: str | Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    told: Told = NOTHING,
) -> Loaded:
    """A model and its tokenizer, their matrices in ``dtype`` (float32 or bfloat16), on ``device``.

    ``source`` is a name ("aim-s" is bundled, "aim-b" on the hub), a folder in AiM's official layout
    or with one prior of this package, a .safetensors file of this package, a .pt file of LlamaGen
    with its tokenizer beside it, or a hub id "owner/name", or its address, of AiM's layout or of
    ``push``. Safetensors may be in parts with an index. A path that exists comes before a hub id.
    ``told`` is what a file of LlamaGen's does not say of itself. InvalidInput: no such name.
    CheckpointError: a damaged, foreign or unfitting file. HubError: not to be fetched. A text means
    a file or folder if it has a separator, a suffix or a ~: a folder here is "./mine".
    """
    if dtype not in DTYPES:
        raise InvalidInput(f"dtype is {dtype}; it must be {' or '.join(map(str, DTYPES))}")
    device = torch.device(device)
    source = named(source)
    on_hub = _on_hub(source)
    if on_hub is not None:
        if told != NOTHING:
            raise InvalidInput(f"{source} says itself what it is; leave out {told.given}")
        return _from_hub(str(source), on_hub, device, dtype)
    path = _local(source)
    model, tokenizer, version = _read(path, device, dtype, told)
    _check_fit(model, tokenizer, path)
    return Loaded(model, tokenizer, _name(path.resolve()), version)


def load_tokenizer_of(source: str | Path, device: torch.device | str = "cpu") -> VQ:
    """A tokenizer in float32, for inference: from its own .safetensors file, else the one that goes
    with the model ``source``; errors as of ``load_model``.
    """
    file = is_tokenizer(source)
    tokenizer = load_tokenizer(file, device) if file else load_model(source, device).tokenizer
    return tokenizer.eval().requires_grad_(False)


def is_tokenizer(source: str | Path | None) -> Path | None:
    """The file that ``source`` names, where that is a tokenizer's own. CheckpointError for a
    damaged one.
    """
    path = Path(source or "")
    own = path.suffix == ".safetensors" and path.is_file()
    return path if own and read_metadata(path).get("kind") in TOKENIZERS else None


def own_prior(source: str | Path) -> Path | None:
    """The file with the prior that ``source`` means, if it is this package's."""
    layout, files = files_of(source)
    return files[0] if layout == "ours" else None


def files_of(source: str | Path) -> tuple[str, list[Path]]:
    """The layout of the model that ``load_model`` reads, ours, official or llamagen, and its files,
    the prior's first.
    """
    source = named(source)
    on_hub = _on_hub(source)
    path = fetch(on_hub) if on_hub else _local(source)
    spec = MODELS.get(str(source))
    file = path / spec.file if spec and spec.file else _weights(path)
    if is_llamagen(file):
        return "llamagen", [*parts(file), tokenizer_beside(file)]
    file = _only_prior(path) if file.is_dir() else file
    if file.is_file() and is_prior(file):
        return "ours", [file, file.with_name(read_metadata(file)["tokenizer"])]
    return "official", [*parts(file), path / CONFIG]


def _name(path: Path) -> str:
    """What a file or folder is called: its own name, but never as another model of MODELS."""
    name = path.stem if path.is_file() else path.name
    if name not in MODELS or path == _bundled(name).resolve():
        return name
    return path.name if path.is_file() else f"{name}/"


def _read(
    path: Path, device: torch.device, dtype: torch.dtype, told: Told = NOTHING
) -> tuple[Prior, VQ, str]:
    file = _weights(path)
    if is_llamagen(file):
        return load_llamagen(file, device, dtype, told=told)
    if told != NOTHING:
        raise InvalidInput(f"{path} says itself what it is; leave out {told.given}")
    # a run of training has a config.json, too, its recipe
    if path.is_dir() and file != path and not (file.is_file() and is_prior(file)):
        return load_official(path, device, dtype)
    return load_prior(_only_prior(path) if file.is_dir() else file, device, dtype)


def _weights(path: Path) -> Path:
    """The weights that a folder means, or an index of their parts; any other path as it is."""
    weights = path / WEIGHTS
    if path.is_dir() and ((path / CONFIG).exists() or weights.exists() or is_there(weights)):
        return weights
    if (path / TOKENIZER).is_file():  # LlamaGen's, perhaps with one prior
        others = [file for file in sorted(path.glob("*.pt")) if file.name != TOKENIZER]
        return others[0] if len(others) == 1 else path
    return whole(path)


def bundled_folder() -> Path:
    """Where the models that come with the package are; AIM_CHECKPOINTS overrides it."""
    package = Path(__file__).resolve().parent.parent
    inside, beside = package / "checkpoints", package.parent / "checkpoints"
    return Settings.from_env().checkpoints or (inside if inside.is_dir() else beside)


def _bundled(name: str) -> Path:
    return bundled_folder() / f"{name}.safetensors"


def _from_hub(name: str, on_hub: HubModel, device: torch.device, dtype: torch.dtype) -> Loaded:
    folder = fetch(on_hub)
    model: Prior
    try:
        spec = MODELS.get(name)
        if spec and isinstance(spec.config, GPTConfig):
            known = spec.config, spec.tokenizer
            model, tokenizer, version = load_llamagen(folder / spec.file, device, dtype, known)
        else:
            model, tokenizer, version = _read(folder, device, dtype)
        _check_fit(model, tokenizer, folder)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}; if the download was damaged, delete {folder.parent.parent} and load {name} "
            "again"
        ) from error
    return Loaded(model, tokenizer, name, version)


def _on_hub(source: str | Path) -> HubModel | None:
    """What of the hub ``source`` means, or None for something on this disk."""
    if isinstance(source, Path):
        return None
    spec = MODELS.get(source)
    if spec and spec.file:
        return HubModel(spec.repo, (TOKENIZER, spec.file), "LlamaGen's")
    if source == LLAMAGEN and not os.path.exists(source):
        names = ", ".join(name for name, other in MODELS.items() if other.repo == LLAMAGEN)
        raise InvalidInput(f"{source} holds several models: give one of their names, {names}")
    repo = (
        spec.repo
        if spec
        else source
        if HUB_ID.fullmatch(source) and not os.path.exists(source)
        else ""
    )
    return HubModel(repo, (CONFIG,), "AiM's", _beside) if repo else None


def _beside(folder: Path) -> Iterator[tuple[str, bool]]:
    """What belongs to the config.json of a repository in ``folder``, and whether it must."""
    if is_pushed(folder / CONFIG):
        yield from ((WEIGHTS, True), (TOKENIZER_FILE, True))
        return
    yield WEIGHTS, False
    if not (folder / WEIGHTS).is_file():
        yield WEIGHTS + INDEX, True
        for part in parts(folder / WEIGHTS):
            yield part.name, True


def _local(source: str | Path) -> Path:
    """The file or folder that ``source`` means."""
    if isinstance(source, str) and source in MODELS:
        if MODELS[source].source == "none":
            size = MODELS[source].tokenizer.output_size
            raise InvalidInput(
                f"{source} has a configuration but no published weights for {size}x{size}; give a "
                "folder or file with yours"
            )
        path = _bundled(source)
        if not path.is_file():
            raise CheckpointError(
                f"the bundled model {source} is not at {path}; fetch the repository whole or set "
                "AIM_CHECKPOINTS to its folder"
            )
        return path
    path = Path(source).expanduser()
    exists = bool(str(source)) and os.path.exists(path)  # Path.exists fails for impossible names
    if isinstance(source, Path) or source.endswith(FILES) or re.search(r"^[.~]|[/\\]", source):
        if exists:
            return path
        raise CheckpointError(f"there is no file or folder {str(source)!r}")
    if exists:
        raise InvalidInput(
            f"no model is called {source!r}; for what is here by that name give ./{source}"
        )
    nearest = ", ".join(difflib.get_close_matches(source.lower(), MODELS, n=3, cutoff=0.0))
    raise InvalidInput(
        f"no model is called {source!r}; the nearest are {nearest}. A folder (./mine), a "
        ".safetensors or .pt file or a hub id (owner/name) will do"
    )


def _only_prior(folder: Path) -> Path:
    priors = [path for path in sorted(folder.glob("*.safetensors")) if is_prior(path)]
    if len(priors) > 1:
        raise CheckpointError(
            f"{folder} holds several models, {', '.join(path.name for path in priors)}: give the "
            "file"
        )
    if not priors:
        raise CheckpointError(
            f"{folder} holds neither {CONFIG} with {WEIGHTS} nor a model of this package"
        )
    return priors[0]


def _check_fit(model: Prior, tokenizer: VQ, where: Path) -> None:
    if why := misfit(model.config, tokenizer.config):
        raise CheckpointError(f"{where}: {why}")
