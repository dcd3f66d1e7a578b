"""What is in a model's or tokenizer's file, in plain values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aim.checkpoint.load import Loaded, files_of, is_tokenizer, load_model
from aim.checkpoint.ours import RESERVED, load_tokenizer
from aim.checkpoint.torch_file import NOTHING, Told
from aim.checkpoint.weights import content_hash, read_metadata
from aim.config import AiMConfig, PriorConfig, VQConfig
from aim.models.vq.model import VQ


def describe(source: str | Path, told: Told = NOTHING) -> dict[str, Any]:
    """Facts about whatever ``load_model`` loads, or about a tokenizer's own file, whose weights are
    read for it: sizes, classes, sampling, versions; ``about`` has what else its writer said.

    ``told`` and errors as of ``load_model``.
    """
    if own := is_tokenizer(source):
        return {"kind": "tokenizer", **_file(own), **_tokenizer(load_tokenizer(own))}
    return facts(load_model(source, told=told), source)


def facts(loaded: Loaded, source: str | Path) -> dict[str, Any]:
    """``describe`` of a model that is ``loaded`` from ``source``."""
    model, tokenizer, name, version = loaded
    config, (layout, files) = model.config, files_of(source)
    return {
        "kind": "AiM" if isinstance(config, AiMConfig) else "Transformer",
        "name": name,
        "version": version,
        "layout": layout,
        **(_file(files[0]) if layout == "ours" else _files(files)),
        "parameters": sum(p.numel() for p in model.parameters()),
        "layers": config.n_layer,
        "width": config.d_model,
        **(
            {"state": config.d_state, "groups": config.num_groups if config.adaln_group else 0}
            if isinstance(config, AiMConfig)
            else {"heads": config.n_head}
        ),
        "classes": config.num_classes,
        "classes_are": _classes(config),
        "codes": config.num_tokens,
        "sampling": config.sampling.describe(),
        "tokenizer": _tokenizer(tokenizer),
    }


def _classes(config: PriorConfig) -> str:
    if config.class_names:
        return "its own, with names"
    if config.classes or config.num_classes == 1000:
        return "ImageNet's"
    return "its own, without names"


def _tokenizer(tokenizer: VQ) -> dict[str, Any]:
    config: VQConfig = tokenizer.config
    return {
        "version": content_hash(tokenizer.state_dict(), ""),
        "parameters": sum(p.numel() for p in tokenizer.parameters()),
        "pixels_in": config.image_size,
        "pixels_out": config.output_size,
        "grid": config.grid,
        "codebook": config.codebook_size,
        "numbers_a_code": config.codebook_dim,
    }


def _files(paths: list[Path]) -> dict[str, Any]:
    names = [path.name for path in paths]
    return {"files": names, "bytes": sum(path.stat().st_size for path in paths)}


def _file(path: Path) -> dict[str, Any]:
    metadata = read_metadata(path)
    about = {key: text for key, text in metadata.items() if key not in RESERVED}
    return {"file": str(path), "bytes": path.stat().st_size, "about": about}
