"""What the fused steps of both priors are asked: in Triton's interpreter at small sizes, on a GPU
at real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aim.config import SamplingParams
from aim.engine import Engine, Finished, Request
from aim.engine.passes import OFF, Widths, up_to

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FLOAT32 = 1e-5  # of logits


def codes_of(model: Any, rows: int) -> Tensor:
    c = model.config
    codes = torch.randint(
        c.vocab_size, (rows, c.num_tokens), generator=torch.Generator().manual_seed(3), device="cpu"
    )
    return codes.to(model.device)


def at(codes: Tensor, positions: Tensor) -> Tensor:
    """The code that each row reads."""
    return codes.gather(1, (positions - 1).clamp(min=0)[:, None])[:, 0]


def distance(got: Tensor, want: Tensor) -> float:
    """The largest relative error of a row."""
    assert got.dtype == want.dtype == torch.float32
    assert got.isfinite().all()
    return ((got - want).norm(dim=-1) / want.norm(dim=-1)).max().item()


def assert_copies_go_on(fast: Any, state: Any) -> None:
    """Slots of ``state``, of four, that are copied go on like their source."""
    codes, labels = codes_of(fast, 2), torch.tensor([1, 5, 1, 5])
    cond = fast.condition(labels)
    fast.prefill(codes[:, :5], labels[:2], state, torch.tensor([0, 1]))
    state.copy(torch.tensor([0, 1]), torch.tensor([2, 3]))
    assert state.slots == 4
    logits = fast.step(codes[:, 5].repeat(2), torch.full((4,), 6), cond, state)
    assert torch.equal(logits[:2], logits[2:])
    assert not torch.equal(logits[0], logits[1])


def assert_same_bits_in_any_company(fast: Any, new_state: Callable[[], Any], steps: int) -> None:
    """In float32; ``new_state`` has four slots."""
    codes, labels = codes_of(fast, 6), torch.arange(6)

    def played(order: list[int]) -> Tensor:
        cond, state = fast.condition(labels[order]), new_state()
        return torch.stack(
            [
                fast.step(codes[order, max(i - 1, 0)], torch.full((4,), i), cond, state)
                for i in range(steps)
            ],
            1,
        )

    first, second = played([0, 1, 2, 3]), played([4, 3, 5, 1])
    assert torch.equal(first[[1, 3]], second[[3, 1]])


def assert_draws_the_same(eager: Any, fast: Any) -> None:
    """In engines that others join after three steps, the fused one one by one and ahead."""
    params = SamplingParams(3.0), SamplingParams(1.0), SamplingParams(1.0, 0.7, 5)
    requests = [Request(i, p, seed=i) for i, p in enumerate(params)]

    def drawn(model: Any, widths: Widths = OFF) -> dict[int, list[int]]:
        engine = Engine(model, 3, widths=widths)
        engine.submit(requests[0])
        events = [event for _ in range(3) for event in engine.step()]
        for request in requests[1:]:
            engine.submit(request)
        events += engine.run()
        ids = [request.id for request in requests]
        return {
            ids.index(e.request_id): e.codes.tolist() for e in events if isinstance(e, Finished)
        }

    want = drawn(eager)
    assert sorted(want) == [0, 1, 2]
    assert all(len(set(codes)) > 3 for codes in want.values())
    assert drawn(fast) == drawn(fast, up_to(4)) == want


def assert_windows_are_the_steps(eager: Any, fast: Any, state: Any, width: int, far: float) -> None:
    """Rows that start one after another, keep as many items as they like, now and then take a step,
    and are at their end at last: the logits of what they keep are the eager model's.
    """
    rows, total, vocabulary = state.slots, fast.config.num_tokens, fast.config.vocab_size
    codes, labels = codes_of(fast, rows), torch.arange(rows) % 6
    read = torch.cat([codes[:, :1], codes[:, :-1]], 1)  # what item i is; the first is the class
    cond = fast.condition(labels)
    want = eager(codes[:, :-1], labels)
    positions = -torch.arange(rows) * 2
    generator = torch.Generator("cpu").manual_seed(width)
    passes = 0
    while bool((positions < total).any()):
        live = (positions >= 0) & (positions < total)
        at = torch.where(live, positions, -1)
        items = at.unsqueeze(1) + torch.arange(width)
        right = torch.randint(1, width + 1, (rows,), generator=generator, device="cpu").to(DEVICE)
        true = read.gather(1, items.clamp(0, total - 1))
        wrong = torch.arange(width) >= right.unsqueeze(1)
        guesses = torch.where(wrong, (true + 1) % vocabulary, true)
        kept = right.minimum(total - positions) * live
        stepped = passes % 4 == 3
        if stepped:
            logits, kept = fast.step(guesses[:, 0], at, cond, state)[:, None], live.long()
        else:
            logits = fast.advance(guesses, at, cond, state)
            assert logits.shape == (rows, width, vocabulary)
        for row in live.nonzero().flatten().tolist():
            start, count = int(positions[row]), int(kept[row])
            got = logits[row, :count]
            assert distance(got, want[row, start : start + count]) < far, (row, start, count)
        if not stepped:
            fast.settle(kept, at, state)
        positions = torch.where(live, positions + kept, positions + (positions < 0))
        passes += 1
    assert passes > total // width
