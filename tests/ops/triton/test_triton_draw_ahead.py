"""The fused draw of a window of guesses against its PyTorch twin: what is settled, and what is
guessed next.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aim import ahead
from aim.ahead import Guesses, draw_window
from aim.config import SamplingParams
from aim.sampling import Rows

pytest.importorskip("triton", reason="Triton is not installed")
from aim.ops.triton.draw_ahead import draw_window_fused, read_window

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
POISON = -77
PARAMS = [
    SamplingParams(3.0),
    SamplingParams(1.0, 0.7, 9),
    SamplingParams(4.0, top_p=0.8),
    SamplingParams(2.0, 0.0),
    SamplingParams(3.0, cfg_schedule="linear", min_p=0.05),
]
# the interpreter computes with NumPy
pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")


def on_device(parts: object) -> dict[str, Tensor]:
    return {name: part.to(DEVICE, copy=True) for name, part in vars(parts).items()}


def placed(positions: list[int], width: int, widest: int, tokens: int, size: int) -> tuple:
    """Rows at these positions, one of nobody, and their guesses."""
    guided = [params.cfg_scale != 1 for params in PARAMS]
    rows = Rows.new(2 * len(PARAMS) + 1, tokens)
    rows.drawn.fill_(POISON)
    for i, (params, position) in enumerate(zip(PARAMS, positions, strict=True)):
        two = 2 * i + guided[i]
        rows.positions[[2 * i, two]], rows.partner[2 * i] = position, two
        rows.params[:, 2 * i] = torch.tensor(params.numbers)
        rows.seed[2 * i], rows.explain[2 * i] = 7 + i, i % 2 == 0
    guesses = Guesses.new(len(rows.positions), widest, tokens, size)
    generator = torch.Generator().manual_seed(width)
    guesses.line.copy_(-torch.rand(guesses.line.shape, generator=generator) * 9)
    guesses.codes.fill_(-5)
    guesses.since[:4] = 5
    return rows, guesses


@pytest.mark.parametrize(("width", "widest", "tokens"), [(2, 16, 36), (4, 4, 36), (16, 16, 49)])
def test_what_is_settled_and_guessed(width: int, widest: int, tokens: int):
    size = 37
    positions = [9, 0, tokens - 2, tokens, 21]
    generator = torch.Generator().manual_seed(width)
    rows, guesses = placed(positions, width, widest, tokens, size)
    count = len(rows.positions)
    logits = torch.randn(count, width, size, generator=generator) * 3
    logits[0, 1:, 5] = torch.nan  # broken, where its guess was right or not
    for right in (0, 1, 2, width - 1):
        # what the first items draw, which is then guessed
        before = Rows(**{name: part.clone() for name, part in vars(rows).items()})
        own = Guesses(**{name: part.clone() for name, part in vars(guesses).items()})
        for _ in range(right):
            seen = Rows(**{name: part.clone() for name, part in vars(before).items()})
            copied = Guesses(**{n: p.clone() for n, p in vars(own).items()})
            counts = draw_window(logits, *ahead.read_window(rows, own, count, width), seen, copied)
            for row in range(count):
                kept, at = int(counts[row]), int(before.positions[row])
                owner = row if int(rows.partner[row]) >= 0 else row - 1
                if 0 < kept < width:
                    own.codes[row, kept - 1] = seen.drawn[owner, at + kept - 1]
        ours, mine = on_device(before), on_device(own)
        read = ahead.read_window(before, own, count, width)
        same = read_window(ours["last"], mine["codes"], ours["positions"], tokens, count, width)
        assert all(torch.equal(a.cpu(), b) for a, b in zip(same, read, strict=True))
        start = before.positions.clone()
        want = draw_window(logits, *read, before, own)
        got = draw_window_fused(
            logits.to(DEVICE),
            *same,
            mine["codes"],
            mine["line"],
            mine["since"],
            **ours,
        )
        assert torch.equal(got.cpu(), want)
        for name in ("positions", "last", "partner", "seed"):
            assert torch.equal(ours[name].cpu(), getattr(before, name)), name
        assert int(want.max()) == min(right + 1, width)
        for row, position in enumerate(before.positions.tolist()):
            upto = max(position, 0)
            assert torch.equal(ours["drawn"][row, :upto].cpu(), before.drawn[row, :upto])
            torch.testing.assert_close(
                ours["notes"][row, :upto].cpu(), before.notes[row, :upto],
                rtol=1e-5, atol=3e-6, equal_nan=True,
            )  # fmt: skip
            left = max(min(width - 1, tokens - upto), 0)
            if want[row] and row > 1:  # behind a broken code nothing matters
                assert torch.equal(mine["codes"][row, :left].cpu(), own.codes[row, :left]), row
                assert torch.equal(
                    mine["codes"][row, width - 1 :].cpu(), guesses.codes[row, width - 1 :]
                )
                settled = torch.arange(int(start[row]), upto)[-own.line.shape[1] :]
                if rows.partner[row] >= 0 and width <= own.line.shape[1]:
                    place = settled % own.line.shape[1]
                    assert torch.equal(mine["line"][row, place].cpu(), own.line[row, place])
