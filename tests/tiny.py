"""A small random model, for tests with and without pytest."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from aim.config import AiMConfig, SamplingParams
from aim.models.aim import AiM

TINY = AiMConfig(
    64,
    2,
    vocab_size=64,
    num_classes=5,
    num_tokens=16,
    num_groups=2,
    d_state=16,
    headdim=32,
    classes=(1, 207, 281, 285, 985),
    sampling=SamplingParams(cfg_scale=3.0),
)


def random_model(seed: int = 0, **changes: Any) -> AiM:
    """Unlike a fresh model, one in which state, class and codes all weigh in on the logits; with changes to its configuration."""
    torch.manual_seed(seed)
    model = AiM(dataclasses.replace(TINY, **changes)).eval().requires_grad_(False)
    gains = {"word_embeddings": 4.0, "position_embeddings": 10.0, "embedding_table": 10.0, "out_proj": 40.0, "adaln": 5.0, "adaLN": 5.0}
    for name, weight in model.named_parameters():
        weight.mul_(next((gain for part, gain in gains.items() if part in name), 1.0))
    return model
