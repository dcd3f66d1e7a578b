"""LlamaGen's official checkpoints (github.com/FoundationVision/LlamaGen): a class-conditional prior
and its tokenizer as PyTorch files.

A file is a state dict, or a table that holds one as ``model`` (their trainer's), ``module`` or
``state_dict``. Names are ours in both networks. ``freqs_cis``, which is computed, and
``quantize.codebook_used``, a training counter, may be there and are not read.
"""

from __future__ import annotations

import argparse
import dataclasses
import pickle
import re
import threading
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aim.checkpoint.config_json import from_values, usual_sampling
from aim.checkpoint.weights import Form, Network, blank, fill, fingerprint
from aim.config import VQ_F16, GPTConfig, VQConfig
from aim.errors import CheckpointError
from aim.files import replacing
from aim.models.gpt.model import GPT
from aim.models.prior import Prior
from aim.models.vq.model import VQ
from aim.ops.attention import rotary_table

TOKENIZER = "vq_ds16_c2i.pt"
SUFFIXES = (".pt", ".pth")
NESTED = ("model", "module", "state_dict")  # in the order in which the official sampler looks
IGNORED = ("freqs_cis", "quantize.codebook_used")
COUNTER_SIZE = 65536
WORDS = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
SIZES = {  # what they call a prior, by its width, layers and heads
    (768, 12, 12): "B",
    (1024, 24, 16): "L",
    (1280, 36, 20): "XL",
    (1536, 48, 24): "XXL",
    (2560, 48, 40): "XXXL",
    (2048, 22, 32): "1B",
    (3200, 24, 32): "3B",
    (4096, 32, 32): "7B",
}
HEAD_DIM = {3200: 100, 4096: 128}  # by d_model; 64 in every other model that they name
CLASSES, CODES = "cls_embedding.embedding_table.weight", "tok_embeddings.weight"

_allowing = threading.Lock()  # what may be unpickled is a setting of the process


def load_llamagen(
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
    known: tuple[GPTConfig, VQConfig] | None = None,
) -> tuple[GPT, VQ, str]:
    """The prior in ``path``, the tokenizer beside it, and a fingerprint of the prior's weights.

    Without ``known``, the configurations of both, the prior's is read off its tensors. They do not
    tell how many codes an image has: the trainer's settings do, if the file holds them, or the name
    of a published file; it is 256 otherwise.
    """
    stored = _unpickle(path)
    weights = _weights(path, stored)
    if known:
        config, tokenizer = known
    else:
        tokenizer = dataclasses.replace(VQ_F16, image_size=_image_size(path, stored))
        config = _inferred(path, weights, tokenizer.grid**2)
    beside = path.with_name(TOKENIZER)
    if not beside.is_file():
        raise CheckpointError(
            f"{path} needs its tokenizer {TOKENIZER}, which is not in {path.parent}"
        )
    model, vq = blank(lambda: GPT(config), dtype), blank(lambda: VQ(tokenizer), dtype)
    _assign(path, model, weights, device)
    _assign(beside, vq, _weights(beside, _unpickle(beside)), device)
    return model, vq, fingerprint(path)


def cannot_hold(model: Prior, vq: VQ) -> list[str]:
    """What of a model LlamaGen's code cannot read in its files; sampling defaults, which are
    nowhere in them, are not among them.
    """
    if not isinstance(model, GPT):
        return ["a Mamba"]
    config, usual = model.config, GPTConfig
    found = [
        f"{name} {getattr(config, name)!r}"
        for name in ("multiple_of", "rope_base", "norm_eps")
        if getattr(config, name) != getattr(usual, name)
    ]
    found += [name for name in ("classes", "class_names") if getattr(config, name)]
    if _size(config) is None:
        found.append(f"{config.n_layer} layers of {config.d_model} with {config.n_head} heads")
    if vq.config != dataclasses.replace(VQ_F16, image_size=vq.config.image_size):
        found.append("a tokenizer other than VQ-16")
    return found


def _size(config: GPTConfig) -> str | None:
    """What they call a prior of this size."""
    return SIZES.get((config.d_model, config.n_layer, config.n_head))


def export_llamagen(model: GPT, vq: VQ, folder: Path) -> Path:
    """Write a prior and its tokenizer under their names and in their layout, in the dtypes that
    they have; the path of the prior. With it goes the rotary table, which their code computes and
    does not read: of it, a file of any name says how large its images are.
    """
    config = model.config
    turns = rotary_table(config.grid, config.head_dim, config.rope_base, torch.device("cpu"))
    counter = torch.zeros(COUNTER_SIZE)
    path = folder / f"c2i_{_size(config)}_{vq.config.image_size}.pt"
    parts = {
        path: {**model.state_dict(), IGNORED[0]: turns},
        folder / TOKENIZER: {**vq.state_dict(), IGNORED[1]: counter},
    }
    for file, tensors in parts.items():
        with replacing(file) as unfinished:
            kept = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
            torch.save({"model": kept}, unfinished)
    return path


def _unpickle(path: Path) -> Any:
    """What ``path`` holds: tensors, still in the file where it allows that, and plain values. No
    code in it is run.
    """
    try:
        # the trainer stores its settings as one
        with _allowing, torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    # of a damaged file: from a dozen classes, with advice that would not be safe to follow
    except Exception as error:
        found = (
            re.search(r"GLOBAL ([\w.]+)", str(error))
            if isinstance(error, pickle.UnpicklingError)
            else None
        )
        if found:
            raise CheckpointError(
                f"{path} holds {found[1]}, which was not run; only tensors, plain values and "
                "argparse.Namespace are read"
            ) from error
        raise CheckpointError(
            f"{path} cannot be read as a PyTorch checkpoint; it may be cut short or of another "
            "format"
        ) from error


def _weights(path: Path, stored: Any) -> dict[str, Tensor]:
    if isinstance(stored, Mapping):
        stored = next((stored[key] for key in NESTED if key in stored), stored)
    if not isinstance(stored, Mapping):
        raise CheckpointError(f"{path} holds no table of tensors, but {type(stored).__name__}")
    others = sorted(
        str(name)
        for name, value in stored.items()
        if not isinstance(name, str) or not isinstance(value, Tensor)
    )
    if others:
        raise CheckpointError(
            f"{path} holds values among its tensors that are none: {', '.join(others[:5])}"
        )
    return {name: tensor for name, tensor in stored.items() if name not in IGNORED}


def _image_size(path: Path, stored: Any) -> int:
    settings = stored.get("args") if isinstance(stored, Mapping) else None
    published = re.fullmatch(r"c2i_\w+_(\d{3})", path.stem)
    size = getattr(settings, "image_size", int(published[1]) if published else VQ_F16.image_size)
    if not isinstance(size, int) or not 0 < size <= 4096 or size % VQ_F16.downsample:
        raise CheckpointError(
            f"{path} is for images of {size!r} pixels; it must be a multiple of "
            f"{VQ_F16.downsample} up to 4096"
        )
    return size


def _inferred(path: Path, weights: Mapping[str, Tensor], num_tokens: int) -> GPTConfig:
    """The configuration of the prior with ``weights``; what else is wrong with them is found when
    they are assigned.
    """
    absent = [name for name in (CLASSES, CODES) if name not in weights or weights[name].dim() != 2]
    if absent:
        raise CheckpointError(
            f"{path} holds no class-conditional prior of LlamaGen: it has no matrix "
            f"{' and no '.join(absent)}"
        )
    codes, width = weights[CODES].shape
    layers = {found[1] for name in weights if (found := re.match(r"layers\.(\d+)\.", name))}
    values = {
        "d_model": width,
        "n_layer": len(layers),
        "n_head": width // HEAD_DIM.get(width, 64),
        "vocab_size": codes,
        "num_classes": len(weights[CLASSES]) - 1,
        "num_tokens": num_tokens,
    }
    config = from_values(GPTConfig, values, path)
    return dataclasses.replace(config, sampling=usual_sampling(config))


def _assign(
    path: Path, network: Network, weights: Mapping[str, Tensor], device: torch.device
) -> None:
    stored = {name: _form(tensor) for name, tensor in weights.items()}
    plain = [weights[name] for name, (_, dtype) in stored.items() if dtype in WORDS.values()]
    storages = {part.data_ptr(): part.nbytes() for part in map(Tensor.untyped_storage, plain)}
    claimed, there = sum(tensor.nbytes for tensor in plain), sum(storages.values())
    if claimed > 2 * there:  # by strides of 0, or one storage under many names
        raise CheckpointError(
            f"{path} holds {there / 1e6:.1f} MB of weights that would be {claimed / 1e6:.1f} MB; "
            "its tensors share what each must have for itself"
        )
    fill(path, {"": network}, stored, weights.__getitem__, device, tuple(WORDS.values()))


def _form(tensor: Tensor) -> Form:
    plain = tensor.layout is torch.strided and tensor.device.type == "cpu"
    return tuple(tensor.shape), WORDS.get(
        tensor.dtype, str(tensor.dtype)
    ) if plain else "not as plain numbers"
