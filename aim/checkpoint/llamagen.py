"""LlamaGen's official checkpoints (github.com/FoundationVision/LlamaGen): a class-conditional prior
and its tokenizer as PyTorch files.

A file is a state dict, or a table that holds one as ``model`` (their trainer's), ``module``,
``state_dict`` or ``ema``. Names are ours in both networks. ``freqs_cis``, which is computed, and
``quantize.codebook_used``, a training counter, may be there and are not assigned. The same tensors
may be in safetensors files, in parts with an index, too.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aim.checkpoint.config_json import from_values, usual_sampling
from aim.checkpoint.ours import FORMAT
from aim.checkpoint.shards import is_there, opened
from aim.checkpoint.torch_file import NOTHING, SUFFIXES, Told, read_file, tensors_of
from aim.checkpoint.weights import Form, Network, blank, fill, fingerprint
from aim.config import VQ_F16, GPTConfig, VQConfig
from aim.errors import CheckpointError
from aim.files import replacing
from aim.models.gpt.model import GPT
from aim.models.prior import Prior
from aim.models.vq.model import VQ
from aim.ops.attention import rotary_table

TOKENIZER = "vq_ds16_c2i.pt"
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
CLASSES, CODES = "cls_embedding.embedding_table.weight", "tok_embeddings.weight"


def load_llamagen(
    path: Path,
    device: torch.device,
    dtype: torch.dtype,
    known: tuple[GPTConfig, VQConfig] | None = None,
    told: Told = NOTHING,
) -> tuple[GPT, VQ, str]:
    """The prior in ``path``, the tokenizer beside it, and a fingerprint of the prior's weights.

    Without ``known``, the configurations of both, the prior's is read off the file. Where that does
    not tell how large an image is, or how many heads there are, it is ``told``, or CheckpointError
    asks for it.
    """
    stored = read_file(path)
    weights = tensors_of(path, stored, told.weights)
    if known:
        config, tokenizer = known
    else:
        _check_prior(path, weights)
        size = _image_size(path, stored, weights, told)
        tokenizer = dataclasses.replace(VQ_F16, image_size=size)
        config = _inferred(path, weights, tokenizer.grid**2, told)
    beside = tokenizer_beside(path)
    model, vq = blank(lambda: GPT(config), dtype), blank(lambda: VQ(tokenizer), dtype)
    _assign(path, model, weights, device)
    _assign(beside, vq, tensors_of(beside, read_file(beside)), device)
    return model, vq, fingerprint(path)


def tokenizer_beside(path: Path) -> Path:
    """The tokenizer of the prior in ``path``, a PyTorch file or one of safetensors."""
    beside = path.with_name(TOKENIZER)
    other = beside.with_suffix(".safetensors")
    if not beside.is_file() and not other.is_file():
        raise CheckpointError(
            f"{path} needs its tokenizer {TOKENIZER}, which is not in {path.parent}"
        )
    return beside if beside.is_file() else other


def is_llamagen(path: Path) -> bool:
    """Whether a file is for ``load_llamagen``: a PyTorch file, or safetensors of their names."""
    if path.suffix in SUFFIXES:
        return path.is_file()
    if path.suffix != ".safetensors" or not is_there(path):
        return False
    with opened(path) as file:
        return CODES in file.keys() and file.metadata().get("format") != FORMAT  # noqa: SIM118, not a dict


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


def _check_prior(path: Path, weights: Mapping[str, Tensor]) -> None:
    absent = [name for name in (CLASSES, CODES) if name not in weights or weights[name].dim() != 2]
    if absent:
        raise CheckpointError(
            f"{path} holds no class-conditional prior of LlamaGen: it has no matrix "
            f"{' and no '.join(absent)}"
        )


def _turns(path: Path, weights: Mapping[str, Tensor]) -> tuple[int, int] | None:
    """Codes each way and channels of a head, by the rotary table where the file holds it."""
    table = weights.get(IGNORED[0])
    if table is None:
        return None
    grid = math.isqrt(max(len(table) - 1, 0)) if table.dim() else 0
    square = grid > 0 and grid**2 == len(table) - 1
    if table.dim() != 3 or not square or table.shape[1] < 1 or table.shape[2] != 2:
        raise CheckpointError(
            f"{path} holds {IGNORED[0]} of shape {list(table.shape)}, which is of no square grid"
        )
    return grid, 2 * table.shape[1]


def _image_size(path: Path, stored: Any, weights: Mapping[str, Tensor], told: Told) -> int:
    """Pixels each way of what the prior was made for: of the rotary table, else the trainer's
    settings, else the name of a published file; else what was ``told``, which may not differ.
    """
    settings: Any = stored.get("args") if isinstance(stored, Mapping) else None
    published = re.fullmatch(r"c2i_[A-Z0-9]+_(\d{3})", path.stem)
    turns, sizes = _turns(path, weights), list[Any]()
    if turns:
        sizes.append(turns[0] * VQ_F16.downsample)
    if hasattr(settings, "image_size"):
        sizes.append(settings.image_size)
    if published:
        sizes.append(int(published[1]))
    if told.image_size is not None:
        sizes.append(told.image_size)
    if not sizes:
        raise CheckpointError(
            f"{path} does not say how large its images are: name it as it is published, as in "
            "c2i_L_384.pt, or write it anew with `aim export --image-size 256` or 384"
        )
    size = sizes[0]
    if not isinstance(size, int) or not 0 < size <= 4096 or size % VQ_F16.downsample:
        raise CheckpointError(
            f"{path} is for images of {size!r} pixels; it must be a multiple of "
            f"{VQ_F16.downsample} up to 4096"
        )
    _same(path, "an image size", size, told.image_size)
    return size


def _same(path: Path, what: str, found: int, told: int | None) -> None:
    if told is not None and told != found:
        raise CheckpointError(f"{path} has {what} of {found}, not of {told}; leave that out")


def _inferred(
    path: Path, weights: Mapping[str, Tensor], num_tokens: int, told: Told = NOTHING
) -> GPTConfig:
    """The configuration of the prior with ``weights``; what else is wrong with them is found when
    they are assigned.
    """
    codes, width = weights[CODES].shape
    layers = len({found[1] for name in weights if (found := re.match(r"layers\.(\d+)\.", name))})
    turns = _turns(path, weights)
    named = [heads for d_model, n_layer, heads in SIZES if (d_model, n_layer) == (width, layers)]
    heads = width // turns[1] if turns else named[0] if named else told.heads
    if heads is None and layers:
        raise CheckpointError(
            f"{path} does not say how many heads its attention has, and {layers} layers of {width} "
            "are no size that LlamaGen names: write it anew with `aim export --heads`"
        )
    values = {
        "d_model": width,
        "n_layer": layers,
        "n_head": 1 if heads is None else heads,
        "vocab_size": codes,
        "num_classes": len(weights[CLASSES]) - 1,
        "num_tokens": num_tokens,
    }
    config = from_values(GPTConfig, values, path)
    _same(path, "a number of heads", config.n_head, told.heads)
    return dataclasses.replace(config, sampling=usual_sampling(config))


def _assign(
    path: Path, network: Network, weights: Mapping[str, Tensor], device: torch.device
) -> None:
    stored = {name: _form(tensor) for name, tensor in weights.items() if name not in IGNORED}
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
