"""Several items a row in one pass: the logits, and when some are kept the state, are bit for bit
those of step by step.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from aim.models.gpt.model import GPT
from tests.models.decoders import PACKED, Case, codes_of, eager, labels_of
from tests.tiny import random_gpt, random_model

FORMS = [Case(random_model, eager), Case(random_gpt, eager), *PACKED]
ROWS = 4


@pytest.fixture(autouse=True)
def _inference():
    with torch.inference_mode():
        yield


@pytest.fixture(params=FORMS, ids=repr)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.mark.parametrize("idle", [None, 0, 3])
@pytest.mark.parametrize("width", [1, 2, 4, 8, 16])
def test_what_is_kept_of_a_pass_is_the_steps(case: Case, width: int, idle: int | None):
    """Rows that keep as many items as they like, until each is at its end."""
    seed = width
    model = case.prepare(case.make(seed))
    total, vocabulary = model.config.num_tokens, model.config.vocab_size
    codes, cond = codes_of(model, ROWS, seed), model.condition(labels_of(model, ROWS))
    read = torch.cat([codes[:, :1], codes[:, :-1]], 1)  # what item i is; the first is the class
    one, many = model.new_state(ROWS), model.new_state(ROWS, 16)
    positions = torch.zeros(ROWS, dtype=torch.int64)
    if idle is not None:
        positions[idle] = -1
    generator = torch.Generator().manual_seed(seed)
    while bool((live := (positions >= 0) & (positions < total)).any()):
        at = torch.where(live, positions, -1)
        kept = torch.randint(1, width + 1, (ROWS,), generator=generator)
        kept = kept.minimum(total - positions) * live
        items = at.unsqueeze(1) + torch.arange(width)
        true = read.gather(1, items.clamp(0, total - 1))
        wrong = torch.arange(width) >= kept.unsqueeze(1)
        guesses = torch.where(wrong, (true + 1) % vocabulary, true)
        logits = model.advance(guesses, at, cond, many)
        model.settle(kept, at, many)
        assert logits.shape == (ROWS, width, vocabulary) and logits.dtype == torch.float32
        for i in range(int(kept.max())):
            step = torch.where(kept > i, at + i, -1)
            want = model.step(true[:, i], step, cond, one)
            assert torch.equal(logits[:, i][kept > i], want[kept > i])
        assert all(torch.equal(a, b) for a, b in zip(one, many, strict=True))
        positions = torch.where(live, positions + kept, positions)
    assert int(positions.clamp(min=0).sum()) == total * (ROWS - (idle is not None))


def test_a_guess_that_is_not_finite_leaves_nothing_behind(case: Case):
    model: Any = case.make()
    table = model.tok_embeddings if isinstance(model, GPT) else model.embeddings.word_embeddings
    poison = model.config.vocab_size - 1
    table.weight[poison] = torch.nan
    form = case.prepare(model)
    codes = codes_of(model, ROWS).clamp(max=poison - 1)
    cond = form.condition(labels_of(model, ROWS))
    clean, dirty = form.new_state(ROWS, 8), form.new_state(ROWS, 8)
    for start in range(0, 12, 3):
        at, kept = torch.full((ROWS,), start), torch.full((ROWS,), 3)
        good = codes[:, [max(start - 1, 0), *range(start, start + 4)]]
        bad = good.clone()
        bad[:, 3:] = poison
        want, got = (
            form.advance(guesses, at, cond, state)[:, :3, :poison]  # AiM's table is its head, too
            for guesses, state in ((good, clean), (bad, dirty))
        )
        assert torch.equal(got, want) and bool(torch.isfinite(want).all())
        for state in (clean, dirty):
            form.settle(kept, at, state)
        assert all(torch.equal(a, b) for a, b in zip(clean, dirty, strict=True))
