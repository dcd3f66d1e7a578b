"""How fast a prior trains: what is counted."""

from __future__ import annotations

import pytest
import torch

from aim.bench.training import throughput
from aim.config import MODELS, GPTConfig
from aim.errors import InvalidInput
from aim.models.gpt.model import GPT
from aim.models.prior import build
from aim.training.pace import product_parameters


def test_products_of_a_code_are_counted_and_those_of_an_image_are_not() -> None:
    with torch.device("meta"):
        aim, plain = (
            build(MODELS["aim-b"].config),
            GPT(GPTConfig(64, 2, 2, vocab_size=100, num_classes=5, num_tokens=16)),
        )
    layer = 768 * (2 * 1536 + 2 * 128 + 24) + 1536 * 768
    assert product_parameters(aim) == 24 * layer + 16384 * 768
    assert (
        product_parameters(plain)
        == sum(p.numel() for n, p in plain.layers.named_parameters() if p.dim() == 2) + 100 * 64
    )


@pytest.mark.parametrize(
    ("name", "batch", "message"), [("aim-z", 1, "model is 'aim-z'"), ("aim-s", 0, "batch is 0")]
)
def test_bad_input_is_named(name: str, batch: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        throughput(name, batch, 1, torch.device("cpu"), False, "auto", False)
