"""AiM's official layout (github.com/hp-l33/AiM): a folder, or hub repository, of config.json and
model.safetensors.

Names are ``mamba.backbone.`` and ours, ``vqvae.`` and the tokenizer's. The head
``mamba.lm_head.weight`` is tied to the embeddings: absent, or equal to them.
``vqvae.quantize.codebook_used``, a training counter, is expected and dropped.

``config.json`` may hold, beyond the official keys, ``tokenizer`` (VQConfig's fields; VQ-f16 when
absent), ``classes``, ``class_names``, ``sampling``, ``position_offset`` and ``norm_eps``, so that
any model of this package survives the layout.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from aim.checkpoint.config_json import MOST_TEXT, from_values, parse_json, to_values, usual_sampling
from aim.checkpoint.shards import opened
from aim.checkpoint.weights import assign, blank, fingerprint, write
from aim.checks import quoted
from aim.config import VQ_F16, AiMConfig, VQConfig
from aim.errors import CheckpointError
from aim.files import replace
from aim.models.aim.model import AiM
from aim.models.prior import Prior
from aim.models.vq.model import VQ

CONFIG, WEIGHTS = "config.json", "model.safetensors"
PRIOR, TOKENIZER = "mamba.backbone.", "vqvae."
EMBEDDINGS, HEAD = PRIOR + "embeddings.word_embeddings.weight", "mamba.lm_head.weight"
COUNTER, COUNTER_SIZE = TOKENIZER + "quantize.codebook_used", 65536

SHAPE = (
    "d_model",
    "n_layer",
    "vocab_size",
    "num_classes",
    "num_tokens",
    "adaln_group",
    "num_groups",
)
MIXER = ("d_state", "d_conv", "expand", "headdim")
NUMBERS = ("position_offset", "norm_eps")
OURS = ("classes", "class_names", "sampling", *NUMBERS)
MUST_BE: dict[str, Any] = {
    "attn_layer_idx": [],
    "d_intermediate": 0,
    "tie_embeddings": True,
    "rms_norm": True,
}
# None of these changes what is computed: there is no attention and no MLP, and the residual is
# float32 here always.
IGNORED = ("attn_cfg", "mlp_drop", "fused_add_norm", "residual_in_fp32")


def read_config(path: Path) -> tuple[AiMConfig, VQConfig]:
    """What a official ``config.json`` describes; CheckpointError names a value that this package
    cannot compute.
    """
    try:
        with path.open(encoding="utf-8") as file:
            values = parse_json(file.read(MOST_TEXT + 1), path)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    known = {
        *SHAPE,
        *OURS,
        *MUST_BE,
        *IGNORED,
        "token_drop",
        "mixer_drop",
        "ssm_cfg",
        "pad_vocab_size_multiple",
        "tokenizer",
    }
    if unknown := sorted(values.keys() - known):
        raise CheckpointError(f"{path}: unknown in the configuration: {', '.join(unknown)}")
    if missing := [name for name in SHAPE if name not in values]:
        raise CheckpointError(f"{path}: missing in the configuration: {', '.join(missing)}")
    for name, needed in MUST_BE.items():
        if values.get(name, needed) != needed:
            raise CheckpointError(
                f"{path}: {name} is {quoted(values[name])}; only {needed!r} is supported"
            )
    fields = {
        name: values[name] for name in (*SHAPE, *OURS, "token_drop", "mixer_drop") if name in values
    }
    config = from_values(
        AiMConfig, {"position_offset": 1, **fields, **_mixer(values.get("ssm_cfg"), path)}, path
    )
    multiple = values.get("pad_vocab_size_multiple", 1)
    if not isinstance(multiple, int) or multiple < 1 or config.vocab_size % multiple:
        raise CheckpointError(
            f"{path}: pad_vocab_size_multiple is {quoted(multiple)}; it must divide vocab_size = "
            f"{config.vocab_size}"
        )
    if "sampling" not in values:
        config = dataclasses.replace(config, sampling=usual_sampling(config))
    return config, from_values(
        VQConfig, values["tokenizer"], path
    ) if "tokenizer" in values else VQ_F16


def _mixer(ssm: Any, path: Path) -> dict[str, Any]:
    layer = ssm.get("layer") if isinstance(ssm, Mapping) else None
    if layer != "Mamba2":
        raise CheckpointError(
            f"{path}: ssm_cfg.layer is {quoted(layer)}; only 'Mamba2' is supported"
        )
    for name in ssm.keys() - {"layer", *MIXER}:
        if name != "ngroups" or ssm[name] != 1:
            raise CheckpointError(
                f"{path}: ssm_cfg.{name} is {quoted(ssm[name])}; supported are {', '.join(MIXER)}, "
                "and ngroups 1"
            )
    return {name: ssm[name] for name in MIXER if name in ssm}


def load_official(folder: Path, device: torch.device, dtype: torch.dtype) -> tuple[AiM, VQ, str]:
    """The prior, the tokenizer and a fingerprint of the weights in ``folder``."""
    path = folder / WEIGHTS
    config, tokenizer = read_config(folder / CONFIG)
    with opened(path) as file:
        if {HEAD, EMBEDDINGS} <= set(file.keys()) and not torch.equal(
            file.get_tensor(HEAD), file.get_tensor(EMBEDDINGS)
        ):
            raise CheckpointError(
                f"{path}: {HEAD} differs from {EMBEDDINGS}; an untied head is not supported"
            )
    model, vq = blank(lambda: AiM(config), dtype), blank(lambda: VQ(tokenizer), dtype)
    assign(path, {PRIOR: model, TOKENIZER: vq}, device, droppable=(HEAD, COUNTER))
    return model, vq, fingerprint(path)


def to_official(model: AiM, vq: VQ) -> dict[str, Tensor]:
    """Every tensor of the official layout by name, the tied head and the counter (empty)
    included.
    """
    named = {PRIOR + name: tensor for name, tensor in model.state_dict().items()}
    named |= {TOKENIZER + name: tensor for name, tensor in vq.state_dict().items()}
    counter = torch.zeros(COUNTER_SIZE, device=model.device)
    return {**named, HEAD: named[EMBEDDINGS], COUNTER: counter}


def export_official(model: AiM, vq: VQ, folder: str | Path, extended: bool = True) -> None:
    """Write ``model`` and its tokenizer in the official layout, in the dtypes that they have.

    The official code reads position i + 1 for code i when it samples, and knows nothing of the keys
    that only this package reads: weights with ``position_offset`` 0 give their right images in this
    package alone. Without ``extended`` those keys are left out, whatever is lost.
    """
    folder = Path(folder)
    tensors = to_official(model, vq)
    del tensors[HEAD]
    write(folder / WEIGHTS, tensors, {"format": "pt", HEAD: EMBEDDINGS})
    values = _official_values(model.config)
    if not extended:
        values = {name: value for name, value in values.items() if name not in OURS}
    elif vq.config != VQ_F16:
        values["tokenizer"] = to_values(vq.config)
    replace(folder / CONFIG, json.dumps(values, indent=2, sort_keys=True) + "\n")


def cannot_hold(model: Prior, vq: VQ) -> list[str]:
    """What of a model the official code cannot read in this layout; its sampling defaults, which
    are nowhere in it, are not among them.
    """
    if not isinstance(model, AiM):
        return ["a Transformer"]
    values = _official_values(model.config)
    beyond = [key for key in OURS if key in values and key != "sampling"]
    tokenizer = ["a tokenizer other than VQ-f16 at 256x256"] if vq.config != VQ_F16 else []
    return [f"{key} {values[key]}" if key in NUMBERS else key for key in beyond] + tokenizer


def _official_values(config: AiMConfig) -> dict[str, Any]:
    own = to_values(config)
    ssm = {
        "layer": "Mamba2",
        **{name: own[name] for name in MIXER if own[name] != getattr(AiMConfig, name)},
    }
    values = {name: own[name] for name in (*SHAPE, "token_drop", "mixer_drop")}
    values |= {
        **MUST_BE,
        "attn_cfg": {},
        "fused_add_norm": True,
        "mlp_drop": 0.0,
        "residual_in_fp32": True,
        "ssm_cfg": ssm,
    }
    values["pad_vocab_size_multiple"] = 1 if config.vocab_size % 8 else 8
    usual = AiMConfig(
        **{name: own[name] for name in (*SHAPE, *MIXER, "token_drop", "mixer_drop")},
        position_offset=1,
    )
    read = dataclasses.replace(usual, sampling=usual_sampling(usual))
    return values | {
        name: own[name] for name in OURS if getattr(config, name) != getattr(read, name)
    }
