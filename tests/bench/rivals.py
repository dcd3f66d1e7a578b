"""A tiny Transformer for the benchmark's tests, beside the tiny AiM of all tests."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from aim.config import AiMConfig, GPTConfig, SamplingParams
from aim.models.gpt.model import GPT
from aim.models.vq.model import VQ
from aim.pipeline import Pipeline
from tests.tiny import TINY

GPT_TINY = GPTConfig(
    32,
    2,
    2,
    vocab_size=TINY.vocab_size,
    num_classes=TINY.num_classes,
    num_tokens=TINY.num_tokens,
    multiple_of=16,
    classes=(207, 1, 281, 285, 985),
    sampling=SamplingParams(cfg_scale=1.5),
)


def tiny_gpt(**changes: Any) -> GPT:
    """A random Transformer for the tokenizer of the tests, with changes to its configuration."""
    torch.manual_seed(3)
    return GPT(dataclasses.replace(GPT_TINY, **changes)).eval().requires_grad_(False)


def gpt_pipeline(vq: VQ, backend: str = "eager", **changes: Any) -> Pipeline:
    """A pipeline of ``tiny_gpt``."""
    return Pipeline(tiny_gpt(**changes), vq, "tiny-gpt", "ba9876543210", backend)


CONFIGS: dict[str, AiMConfig | GPTConfig] = {"aim-tiny": TINY, "gpt-tiny": GPT_TINY}
