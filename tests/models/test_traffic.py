"""Bytes a step must move, against numbers worked out by hand, the tensors themselves and the tables
of docs/performance.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aim.config import MODELS
from aim.models.aim.cpu import CPUAiM
from aim.models.aim.model import AiM
from aim.models.gpt.cpu import CPUGPT
from aim.models.traffic import Traffic, aim_matrices, aim_traffic, gpt_matrices, gpt_traffic
from tests.bench.rivals import tiny_gpt

DOCS = Path(__file__).resolve().parents[2] / "docs" / "performance.md"
BANDWIDTH = 4.2e12  # of the copies of the GPU that the document compares with


def test_the_weights_of_aim_xl() -> None:
    projections = 1536 * 6448 + 3072 * 1536
    assert (
        aim_traffic(MODELS["aim-xl"].config, 2, 2, 2).weights
        == 2 * (48 * projections + 16384 * 1536)
        == 1_454_112_768
    )


@pytest.mark.parametrize(("state_itemsize", "layer"), [(2, 786_432), (4, 1_572_864)])
def test_the_state_of_aim_xl(state_itemsize: int, layer: int) -> None:
    window = 3 * 3328 * 2  # three items of x, B and C, in bf16
    moved = aim_traffic(MODELS["aim-xl"].config, 512, 2, 2, state_itemsize)
    assert moved.state == 512 * 48 * 2 * (layer + window)


def test_the_floor_of_aim_xl() -> None:
    moved = Traffic(weights=1_454_112_768, state=545_887_232)
    assert moved.total == 2_000_000_000
    assert moved.floor_ms(4e12) == pytest.approx(0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_tensors_are_as_large_as_the_formula_says(
    make_model: Callable[..., AiM], dtype: torch.dtype
) -> None:
    model = make_model().to_dtype(dtype)
    read = [
        w
        for name, w in model.named_parameters()
        if any(part in name for part in ("in_proj", "out_proj", "word_embeddings"))
    ]
    assert aim_matrices(model.config) == sum(weight.numel() for weight in read)
    for form in (model, CPUAiM(model)):
        moved = form.traffic(6)
        assert moved.weights == sum(weight.nbytes for weight in read)
        assert moved.state == 2 * sum(part.nbytes for part in form.new_state(6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_transformer_reads_its_matrices_and_what_is_filled_of_its_cache(
    dtype: torch.dtype,
) -> None:
    model = tiny_gpt(num_tokens=64).to_dtype(dtype)
    read = [w for name, w in model.named_parameters() if w.dim() == 2 and "embedding" not in name]
    assert gpt_matrices(model.config) == sum(weight.numel() for weight in read)
    for form in (model, CPUGPT(model)):
        moved = form.traffic(6)
        assert moved.weights == sum(weight.nbytes for weight in read)
        # of all rows: keys and values of one position
        item = sum(part[:, :6, :, 0].nbytes for part in form.new_state(6))
        assert moved.state == sum(position * item + item for position in range(64)) // 64


def test_a_cache_may_be_wider_than_the_weights() -> None:
    config = MODELS["gpt-s"].config
    narrow, wide = (gpt_traffic(config, 2, itemsize=2, cache_itemsize=size) for size in (2, 4))
    assert (wide.weights, wide.state) == (narrow.weights, 2 * narrow.state)
    assert wide.state == 2 * config.n_layer * 2 * config.d_model * 4 * 257 // 2


@pytest.mark.parametrize("name", ["aim-b", "aim-l", "aim-xl", "aim-1b"])
def test_the_table_of_floors_is_true(name: str) -> None:
    config = MODELS[name].config
    moved = [aim_traffic(config, 2 * batch, 2, 2, 2) for batch in (1, 16, 64, 256)]
    alone = 1e3 * moved[0].weights / BANDWIDTH
    cells = [f"{m.total / 1e9:.2f} GB, {m.floor_ms(BANDWIDTH):.2f} ms" for m in moved]
    row = f"| {name} | {moved[0].weights / 1e9:.3f} GB, {alone:.3f} ms | {' | '.join(cells)} |"
    assert row in DOCS.read_text(encoding="utf-8").splitlines()
