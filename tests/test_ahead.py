"""Windows of guesses settle to the codes of one by one, whatever is guessed and however it is
drawn.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from aim.ahead import Guesses, draw_window, read_window
from aim.config import SamplingParams
from aim.sampling import BROKEN, Rows, draw_rows
from tests.tiny import random_gpt, random_model

REQUESTS = [
    SamplingParams(),
    SamplingParams(cfg_scale=1.0, temperature=0.7, top_k=9),
    SamplingParams(cfg_scale=4.0, top_p=0.8),
    SamplingParams(cfg_scale=2.0, temperature=0.0),
    SamplingParams(cfg_scale=3.0, cfg_schedule="linear", min_p=0.05),
    SamplingParams(cfg_scale=6.0, cfg_schedule="cosine", cfg_to=0.5, temperature=1.3),
]
SLOTS = 2 * len(REQUESTS)


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


def rows_of(total: int, seed: int) -> Rows:
    rows = Rows.new(SLOTS, total)
    for i, params in enumerate(REQUESTS):
        two = 2 * i + (params.cfg_scale != 1)
        rows.positions[[2 * i, two]], rows.partner[2 * i] = 0, two
        rows.params[:, 2 * i] = torch.tensor(params.numbers)
        rows.seed[2 * i], rows.explain[2 * i] = seed + i, i % 2 == 0
    return rows


def labels_of(model: Any) -> Tensor:
    return torch.tensor([[i % 5, model.config.num_classes] for i in range(len(REQUESTS))]).flatten()


def one_by_one(model: Any, seed: int) -> Rows:
    rows, state = rows_of(model.config.num_tokens, seed), model.new_state(SLOTS)
    cond = model.condition(labels_of(model))
    for _ in range(model.config.num_tokens):
        draw_rows(model.step(rows.last, rows.positions, cond, state), rows)
    return rows


def ahead(model: Any, seed: int, width: int, guess: int | None = None) -> tuple[Rows, int]:
    """The rows when all is drawn, and the passes; ``guess`` spoils every guess."""
    c = model.config
    rows, state = rows_of(c.num_tokens, seed), model.new_state(SLOTS, width)
    guesses = Guesses.new(SLOTS, width, c.num_tokens, c.vocab_size)
    cond = model.condition(labels_of(model))
    passes = 0
    while bool(((rows.positions >= 0) & (rows.positions < c.num_tokens)).any()):
        if guess is not None:
            guesses.codes.fill_(guess)
        items, at = read_window(rows, guesses, SLOTS, width)
        logits = model.advance(items, at, cond, state)
        model.settle(draw_window(logits, items, at, rows, guesses), at, state)
        passes += 1
        assert passes <= c.num_tokens
    return rows, passes


@pytest.mark.parametrize("peak", [0.2, 1.0, 8.0])
@pytest.mark.parametrize("make", [random_model, random_gpt])
@pytest.mark.parametrize("width", [1, 2, 4, 8, 16])
def test_codes_and_notes_are_those_of_one_by_one(make: Any, width: int, peak: float):
    """From flat logits, where next to nothing is guessed right, to peaked ones."""
    model = make(width)
    head = getattr(model, "output", None) or model.final_layer.norm_final
    head.weight.mul_(peak)
    want = one_by_one(model, 100 * width)
    for guess in (None, 7):
        got, _ = ahead(model, 100 * width, width, guess)
        assert torch.equal(got.drawn, want.drawn) and torch.equal(got.positions, want.positions)
        torch.testing.assert_close(got.notes, want.notes, rtol=0, atol=0, equal_nan=True)


def test_what_is_guessed_right_takes_fewer_passes():
    model = random_gpt(3)
    model.tok_embeddings.weight.mul_(0.01)  # what is drawn says little of what follows
    passes = [ahead(model, 5, width)[1] for width in (1, 2, 4, 8)]
    assert passes[0] == 16 and passes == sorted(passes, reverse=True) and passes[-1] < 12


def test_a_broken_code_is_told_and_one_behind_a_wrong_guess_is_not():
    """Where a guess makes the logits infinite nothing is broken, unless that code is drawn."""
    model = random_gpt(4)
    drawn = one_by_one(model, 9).drawn
    unseen = next(code for code in range(64) if not bool((drawn == code).any()))
    model.tok_embeddings.weight[unseen] = torch.nan
    got, _ = ahead(model, 9, 4, unseen)
    assert torch.equal(got.drawn, drawn)
    model.tok_embeddings.weight[drawn[0, 2]] = torch.nan
    got, _ = ahead(model, 9, 4)
    assert torch.equal(got.drawn, one_by_one(model, 9).drawn)
    assert got.drawn[0, :3].tolist() == drawn[0, :3].tolist() and got.drawn[0, 3] == BROKEN
