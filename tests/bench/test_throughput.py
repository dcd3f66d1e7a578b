"""How fast a prior trains: what is counted, and what a person sees."""

from __future__ import annotations

import json

import pytest
import torch
from typer.testing import CliRunner

from aim.bench.training import product_parameters, throughput
from aim.cli import app
from aim.config import MODELS, GPTConfig
from aim.errors import InvalidInput
from aim.models.gpt.model import GPT
from aim.models.prior import build


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


def test_the_command_prints_a_table_and_a_line(tmp_path: object) -> None:
    done = CliRunner().invoke(
        app,
        [
            "train",
            "throughput",
            "--model",
            "aim-s",
            "--batch",
            "1",
            "--steps",
            "2",
            "--device",
            "cpu",
        ],
    )
    assert done.exit_code == 0, done.output
    line = json.loads(done.output.strip().splitlines()[-1])
    [result] = line["training"]
    assert result["batch"] == 1 and result["dtype"] == "float32" and 5 < result["loss"] < 9
    assert result["images_per_second"] == pytest.approx(1e3 / result["step_ms"], rel=0.02)
    with torch.device("meta"):
        count = product_parameters(build(MODELS["aim-s"].config))
    assert result["tflops"] == pytest.approx(
        6 * count * 256 * result["images_per_second"] / 1e12, abs=0.011
    )
    assert line["machine"]["pytorch"] == torch.__version__


@pytest.mark.parametrize(
    ("name", "batch", "message"), [("aim-z", 1, "model is 'aim-z'"), ("aim-s", 0, "batch is 0")]
)
def test_bad_input_is_named(name: str, batch: int, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        throughput(name, batch, 1, torch.device("cpu"), False, "auto", False)
