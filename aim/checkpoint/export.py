"""Models in the layouts that others read: this package's, AiM's official one, LlamaGen's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from aim.checkpoint import llamagen, official
from aim.checkpoint.config_json import to_values
from aim.checkpoint.load import Loaded, load_model, own_prior
from aim.checkpoint.official import CONFIG, WEIGHTS
from aim.checkpoint.ours import (
    FORMAT,
    TOKENIZER_FILE,
    copy_model,
    save_model,
    save_tokenizer,
    stored_dtype,
)
from aim.checkpoint.torch_file import NOTHING, Told
from aim.errors import InvalidInput
from aim.files import replace
from aim.models.prior import Prior
from aim.models.vq.model import VQ

OURS, OFFICIAL, LLAMAGEN = LAYOUTS = ("ours", "official", "llamagen")
BEYOND: dict[str, Callable[[Prior, VQ], list[str]]] = {
    OURS: lambda model, vq: [],
    OFFICIAL: official.cannot_hold,
    LLAMAGEN: llamagen.cannot_hold,
}


def check_layout(layout: str, loaded: Loaded) -> None:
    """InvalidInput for a layout that there is not, or that cannot hold a model, with what of it."""
    if layout not in LAYOUTS:
        raise InvalidInput(f"layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}")
    beyond = BEYOND[layout](loaded.model, loaded.tokenizer)
    if beyond:
        raise InvalidInput(
            f"the layout {layout!r} cannot hold {loaded.name}: it has no place for "
            f"{', '.join(beyond)}; take {OURS!r}"
        )


def export(
    source: str | Path,
    folder: str | Path,
    layout: str = OURS,
    storage: str | None = None,
    told: Told = NOTHING,
) -> None:
    """Write the model ``source`` (it and ``told`` as of ``load_model``) and its tokenizer into
    ``folder``, which must be new or empty.

    Layouts: "ours" is ``model.safetensors``, ``tokenizer.safetensors`` and a ``config.json`` by
    which a hub is asked; "official" is AiM's, "llamagen" that of LlamaGen's PyTorch files.
    ``storage``, float32, bfloat16 or (ours alone) int8, is what matrices are stored in: by default
    this package's own files are copied to the bit, and others written in float32. InvalidInput: a
    folder with something in it, or what a layout cannot hold; errors of ``load_model``.
    """
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInput(f"{folder} is there already; give a folder that is new or empty")
    dtype = stored_dtype(storage or "float32")
    if layout != OURS and dtype == torch.int8:
        raise InvalidInput(f"storage is int8, which only the layout {OURS!r} has")
    loaded = load_model(source, told=told)
    check_layout(layout, loaded)
    write_layout(loaded, source, folder, layout, storage)


def write_layout(
    loaded: Loaded, source: str | Path, folder: Path, layout: str, storage: str | None
) -> None:
    """``export`` of a model that is loaded, in float32, and that the layout can hold; with
    ``storage`` it may be cast.
    """
    model, vq = loaded.model, loaded.tokenizer
    folder.mkdir(parents=True, exist_ok=True)
    if layout == OURS:
        _write_ours(loaded, source, folder, storage)
        return
    if storage:
        model, vq = model.to_dtype(stored_dtype(storage)), vq.to_dtype(stored_dtype(storage))
    if layout == OFFICIAL:
        official.export_official(model, vq, folder, False)  # type: ignore[arg-type]  # checked
    else:
        llamagen.export_llamagen(model, vq, folder)  # type: ignore[arg-type]


def _write_ours(loaded: Loaded, source: str | Path, folder: Path, storage: str | None) -> None:
    own = own_prior(source)
    prior, tokenizer = folder / WEIGHTS, folder / TOKENIZER_FILE
    if own and not storage:
        copy_model(own, prior, tokenizer)
    else:
        dtype = stored_dtype(storage or "float32")
        save_tokenizer(tokenizer, loaded.tokenizer, {}, dtype)
        save_model(prior, loaded.model, {"tokenizer": tokenizer.name}, dtype)
    values = {
        "format": FORMAT,
        "tokenizer": tokenizer.name,
        "config": to_values(loaded.model.config),
    }
    replace(folder / CONFIG, json.dumps(values, indent=2, sort_keys=True) + "\n")
