"""This package's own files: one safetensors file a network, its configuration in the metadata.

Metadata: ``format`` "aim", ``kind`` "aim", "gpt" or "vq", ``config`` (JSON), ``version`` (a hash of
the content), and what the writer adds; a prior names the tokenizer file beside it in ``tokenizer``.
Matrices are stored in bfloat16, what must stay float32 (norms, A_log, dt_bias, D, codebook) in
float32. Or matrices, tables and convolutions are stored in 8 bits (``int8.py``), all else in
float32; then metadata has ``storage`` "int8".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from aim.checkpoint.config_json import MOST_TEXT, from_values, parse_json, to_values
from aim.checkpoint.int8 import rounded
from aim.checkpoint.shards import opened
from aim.checkpoint.weights import (
    Network,
    assign,
    blank,
    content_hash,
    read_metadata,
    write,
)
from aim.config import AiMConfig, GPTConfig, PriorConfig, VQConfig
from aim.errors import CheckpointError, InvalidInput
from aim.models.prior import Prior, build
from aim.models.vq.model import VQ

FORMAT = "aim"
PRIORS: dict[str, type[PriorConfig]] = {"aim": AiMConfig, "gpt": GPTConfig}
TOKENIZERS = ("vq",)
RESERVED = ("format", "kind", "config", "version")
TOKENIZER_FILE = "tokenizer.safetensors"  # beside model.safetensors in a folder for a hub
STORAGE = "storage"  # of the metadata, where it is not the usual one
STORED = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def save_model(
    path: str | Path, model: Prior, metadata: Mapping[str, str], dtype: torch.dtype = torch.bfloat16
) -> str:
    """Write a prior, its matrices in ``dtype``: float32, bfloat16 or int8; returns its version.

    ``metadata`` is any text about it; ``tokenizer`` in it, a file name, is what ``load_model`` will
    look for beside the file.
    """
    tokenizer = metadata.get("tokenizer")
    if tokenizer is not None and not _plain(tokenizer):
        raise InvalidInput(
            f"metadata tokenizer is {tokenizer!r}; it must be the name of a file in the same folder"
        )
    kind = next(kind for kind, config in PRIORS.items() if isinstance(model.config, config))
    return _save(Path(path), model, kind, metadata, lambda: build(model.config), dtype)


def save_tokenizer(
    path: str | Path, vq: VQ, metadata: Mapping[str, str], dtype: torch.dtype = torch.bfloat16
) -> str:
    """Write a tokenizer, its convolutions in ``dtype``: float32, bfloat16 or int8; returns its
    version. ``metadata`` is any text about it.
    """
    return _save(Path(path), vq, TOKENIZERS[0], metadata, lambda: VQ(vq.config), dtype)


def copy_tokenizer(source: Path, path: Path, metadata: Mapping[str, str]) -> None:
    """Write the tokenizer of ``source``, the same to the bit, to ``path``, with ``metadata`` added:
    weights in 8 bits that are loaded and saved again may get scales that differ in the last bit.
    """
    _copy(source, path, _checked(source, TOKENIZERS, "a tokenizer"), metadata)


def copy_model(source: Path, path: Path, tokenizer: Path) -> None:
    """Write the prior of ``source`` to ``path``, and its tokenizer to ``tokenizer`` in the same
    folder, both the same to the bit.
    """
    known = _checked(source, PRIORS, "a prior")
    copy_tokenizer(source.with_name(known["tokenizer"]), tokenizer, {})
    _copy(source, path, known, {"tokenizer": tokenizer.name})


def _copy(source: Path, path: Path, known: Mapping[str, str], metadata: Mapping[str, str]) -> None:
    _check(metadata)
    with opened(source) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    write(path, tensors, {**known, **metadata})


def stored_dtype(name: str | torch.dtype) -> torch.dtype:
    """What weights are stored in, by its name. InvalidInput for another."""
    for known, dtype in STORED.items():
        if name in (known, dtype):
            return dtype
    raise InvalidInput(f"storage is {name!s}; it must be one of {', '.join(STORED)}")


def _save(
    path: Path,
    module: Network,
    kind: str,
    metadata: Mapping[str, str],
    build: Callable[[], Network],
    dtype: torch.dtype,
) -> str:
    _check(metadata)
    tensors = _stored(module, build, stored_dtype(dtype))
    config = json.dumps(to_values(module.config))
    version = content_hash(tensors, config)
    facts = {"format": FORMAT, "kind": kind, "config": config, "version": version}
    if dtype == torch.int8:
        facts[STORAGE] = "int8"
    write(path, tensors, {**metadata, **facts})
    return version


def _check(metadata: Mapping[str, str]) -> None:
    for key, value in metadata.items():
        if key in (*RESERVED, STORAGE) or not isinstance(value, str):
            raise InvalidInput(
                f"metadata {key!r} is {value!r}; it must be text, under a name other than "
                f"{', '.join((*RESERVED, STORAGE))}"
            )


def _stored(module: Network, build: Callable[[], Network], dtype: torch.dtype) -> dict[str, Tensor]:
    """What a file holds of ``module`` with its matrices in ``dtype``."""
    weights = {name: tensor.detach().cpu() for name, tensor in module.state_dict().items()}
    small = dtype == torch.int8
    usual = blank(build, torch.bfloat16 if small else dtype).state_dict()
    if not small:
        return {name: weight.to(usual[name].dtype) for name, weight in weights.items()}
    tensors: dict[str, Tensor] = {}
    for name, weight in weights.items():
        matrix = usual[name].dtype == torch.bfloat16 and weight.dim() > 1
        tensors.update(rounded(name, weight) if matrix else {name: weight.float()})
    return tensors


def is_prior(path: Path) -> bool:
    """Whether ``path`` is a prior in this package's format."""
    metadata = read_metadata(path)
    return metadata.get("format") == FORMAT and metadata.get("kind") in PRIORS


def is_pushed(config: Path) -> bool:
    """Whether a ``config.json`` says that its folder is in this package's layout."""
    try:
        with config.open(encoding="utf-8") as file:
            return parse_json(file.read(MOST_TEXT + 1), config).get("format") == FORMAT
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{config} cannot be read: {error}") from error


def load_prior(path: Path, device: torch.device, dtype: torch.dtype) -> tuple[Prior, VQ, str]:
    """A prior, the tokenizer that it names, and its version."""
    metadata = _checked(path, PRIORS, "a prior")
    name = metadata.get("tokenizer")
    if name is None or not _plain(name):
        raise CheckpointError(
            f"{path} names no tokenizer file beside it (its metadata says {name!r})"
        )
    if not path.with_name(name).is_file():
        raise CheckpointError(f"{path} needs its tokenizer {name}, which is not in {path.parent}")
    config: PriorConfig = from_values(
        PRIORS[metadata["kind"]], parse_json(metadata["config"], path), path
    )
    model = blank(lambda: build(config), dtype)
    assign(path, {"": model}, device)
    return model, load_tokenizer(path.with_name(name), device, dtype), metadata["version"]


def load_tokenizer(
    path: str | Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> VQ:
    """A tokenizer in this package's format; CheckpointError says what is wrong with the file."""
    path = Path(path)
    metadata = _checked(path, TOKENIZERS, "a tokenizer")
    vq = blank(lambda: VQ(from_values(VQConfig, parse_json(metadata["config"], path), path)), dtype)
    assign(path, {"": vq}, torch.device(device))
    return vq


def _checked(path: Path, kinds: Collection[str], wanted: str) -> dict[str, str]:
    """The metadata of a file of this package that must hold a network of one of ``kinds``, which
    are ``wanted``.
    """
    metadata = read_metadata(path)
    if metadata.get("format") != FORMAT:
        with opened(path) as file:
            official = any(name.startswith("mamba.") for name in file.keys())  # noqa: SIM118, not a dict
        hint = (
            "; it looks like AiM's official layout: give the folder that holds it and its "
            "config.json"
            if official
            else ""
        )
        raise CheckpointError(
            f"{path} is not a checkpoint of this package: its metadata says format "
            f"{metadata.get('format')!r}{hint}"
        )
    absent = [key for key in RESERVED if key not in metadata]
    if absent:
        raise CheckpointError(f"{path} has no {' and no '.join(absent)} in its metadata")
    kind = metadata["kind"]
    if kind not in kinds:
        found = (
            "a prior"
            if kind in PRIORS
            else "a tokenizer"
            if kind in TOKENIZERS
            else f"a network of kind {kind!r}"
        )
        raise CheckpointError(f"{path} holds {found}; {wanted} is needed")
    return metadata


def _plain(name: str) -> bool:
    return bool(name) and Path(name).name == name and "\\" not in name
