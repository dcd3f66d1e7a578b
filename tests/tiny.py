"""Small random models, for tests with and without pytest."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from aim.config import AiMConfig, GPTConfig, SamplingParams
from aim.models.aim.model import AiM
from aim.models.gpt.model import GPT

CLASSES, SAMPLING = (1, 207, 281, 285, 985), SamplingParams(cfg_scale=3.0)
TINY = AiMConfig(
    64,
    2,
    vocab_size=64,
    num_classes=5,
    num_tokens=16,
    num_groups=2,
    d_state=16,
    headdim=32,
    classes=CLASSES,
    sampling=SAMPLING,
)
TINY_GPT = GPTConfig(
    64,
    2,
    4,
    vocab_size=64,
    num_classes=5,
    num_tokens=16,
    multiple_of=32,
    classes=CLASSES,
    sampling=SAMPLING,
)
GAINS = {
    "word_embeddings": 4.0,
    "position_embeddings": 10.0,
    "embedding_table": 10.0,
    "out_proj": 40.0,
    "adaln": 5.0,
    "adaLN": 5.0,
}


def random_model(seed: int = 0, **changes: Any) -> AiM:
    """Unlike a fresh model, one in which state, class and codes all weigh in on the logits; with
    changes to its configuration.
    """
    torch.manual_seed(seed)
    model = AiM(dataclasses.replace(TINY, **changes)).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        weight.mul_(next((gain for part, gain in GAINS.items() if part in name), 1.0))
    return model


def random_gpt(seed: int = 0, **changes: Any) -> GPT:
    """The same of a Transformer."""
    torch.manual_seed(seed)
    model = GPT(dataclasses.replace(TINY_GPT, **changes)).eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            # keeps the size of what it multiplies
            module.weight.normal_(std=module.in_features**-0.5)
        elif isinstance(module, torch.nn.Embedding):
            module.weight.normal_(std=0.5)
    return model
