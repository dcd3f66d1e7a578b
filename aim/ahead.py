"""Drawing ahead: which codes of a window of guesses are settled, and what to guess next.

A draw depends on logits, seed and position alone, so the picture of a seed is one fixed point, and
it is reached from any guesses. Item w of a window was read behind w guesses; what it draws is
settled if those were what was drawn. Guesses change how many passes that takes, and nothing else.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from aim.ops.triton import TRITON, runs_kernels
from aim.sampling import RowParams, Rows, active, draw_guided, explain, pick


@dataclass
class Guesses:
    """Of a pool of S slots, beside ``Rows``; both rows of a request have the same codes."""

    codes: Tensor  # (S, W - 1) int64, of the positions after the one that is drawn next
    # (S, G, V) float16: guided logits less their maximum of the last G settled codes, of code t at
    # t % G; of conditional rows
    line: Tensor
    since: Tensor  # (S,) int64, the first position in ``line``

    @classmethod
    def new(
        cls, slots: int, width: int, tokens: int, codes: int, device: torch.device | str = "cpu"
    ) -> Guesses:
        """For windows of up to ``width`` items in square pictures of ``tokens`` codes."""
        return cls(
            torch.zeros(slots, width - 1, dtype=torch.int64, device=device),
            torch.zeros(slots, math.isqrt(tokens), codes, dtype=torch.float16, device=device),
            torch.zeros(slots, dtype=torch.int64, device=device),
        )

    def start(self, slots: Tensor, positions: Tensor) -> None:
        """Forget slots (K,), which begin at ``positions`` (K,)."""
        self.codes[slots] = 0
        self.since[slots] = positions

    def move(self, src: Tensor, dst: Tensor) -> None:
        """Copy slots ``src (K,)`` over slots ``dst (K,)``."""
        for part in (self.codes, self.line, self.since):
            part[dst] = part[src]


def read_window(rows: Rows, guesses: Guesses, count: int, width: int) -> tuple[Tensor, Tensor]:
    """What a pass of ``width`` items of the first ``count`` slots reads (R, W), their last codes
    and guesses; and at what positions (R,) it begins, negative where idle or where all is drawn.
    """
    total = rows.drawn.shape[1]
    if TRITON and runs_kernels(rows.last.device):
        from aim.ops.triton import draw_ahead

        buffers = rows.last, guesses.codes, rows.positions
        return draw_ahead.read_window(*buffers, total, count, width)
    last, positions = rows.last[:count], rows.positions[:count]
    items = torch.cat([last.unsqueeze(1), guesses.codes[:count, : width - 1]], 1)
    return items, torch.where(positions < total, positions, -1)


def draw_window(
    logits: Tensor,
    items: Tensor,
    starts: Tensor,
    rows: Rows,
    guesses: Guesses,
) -> Tensor:
    """Settle what a pass over ``guesses`` gives: logits (R, W, V) of slots 0 ... R-1, which read
    items (R, W) at positions ``starts (R,)`` and on -> how many codes of each row are settled (R,)
    int64. Both are of ``read_window``; where ``starts`` is negative, none is.

    Writes to ``rows`` what as many calls of ``sampling.draw_rows`` write, and to ``guesses`` what
    the next pass reads: what was drawn behind a wrong guess; for a position that enters the window
    what the logits of the position above it say if they are older than this pass, else those of the
    position W before. With Triton's kernels nothing waits for the device, and a CUDA graph can hold
    the call.
    """
    if TRITON and logits.device.type == "cuda":
        from aim.ops.triton import draw, draw_ahead

        if draw.supports(logits[0]):
            state = starts, guesses.codes, guesses.line, guesses.since
            return draw_ahead.draw_window_fused(logits, items, *state, **vars(rows))
    count, width = logits.shape[:2]
    counts, total = torch.zeros_like(starts), rows.drawn.shape[1]
    one = ((rows.partner[:count] >= 0) & (starts >= 0)).nonzero().squeeze(1)  # (K,)
    if not len(one):
        return counts
    two, start = rows.partner[one], starts[one]
    step = torch.arange(width, device=logits.device)
    at = start.unsqueeze(1) + step  # (K, W)
    cond, uncond = logits[one].flatten(0, 1), logits[two].flatten(0, 1)
    own = _params(rows, one)
    each = torch.arange(len(one), device=one.device).repeat_interleave(width)
    flat, guided = draw_guided(cond, uncond, _of(own, each), at.clamp(max=total - 1).flatten())
    codes = flat.view(-1, width)

    right = items[one, 1:] == codes[:, :-1]
    kept = (1 + right.long().cumprod(1).sum(1)).minimum(total - start)
    settled = step < kept.unsqueeze(1)
    slot = one.unsqueeze(1).expand(-1, width)
    rows.drawn[slot[settled], at[settled]] = codes[settled]
    lines = (guided - guided.amax(-1, keepdim=True)).half()
    guesses.line[slot[settled], at[settled] % guesses.line.shape[1]] = lines[settled.flatten()]
    told = settled & rows.explain[slot]
    if bool(told.any()):
        some = told.flatten()
        rows.notes[slot[told], at[told]] = explain(
            cond[some], uncond[some], guided[some], flat[some]
        )

    # where a window has moved on by ``kept``, the codes that were drawn behind wrong guesses, and
    # guesses of what has entered it
    after = kept.unsqueeze(1) + step[:-1]  # (K, W - 1), counted from ``start``
    coming = codes.gather(1, after.clamp(max=width - 1))
    enters = (after >= width) & (start.unsqueeze(1) + after < total)
    who, _ = enters.nonzero().unbind(1)
    if len(who):
        entered, grid = (start.unsqueeze(1) + after)[enters], guesses.line.shape[1]
        above = entered - grid
        older = (above < start[who]) & (above >= guesses.since[one[who]])
        coming[enters] = pick(
            torch.where(
                older.unsqueeze(1),
                guesses.line[one[who], above % grid],
                lines.view(-1, width, lines.shape[1])[who, entered - start[who] - width],
            ).float(),
            _of(own, who),
            entered,
        )
    last = codes.gather(1, kept.unsqueeze(1) - 1).squeeze(1)
    for slots in (one, two):
        rows.last[slots], counts[slots] = last, kept
        guesses.codes[slots, : width - 1] = coming
    rows.positions[:count] += counts
    return counts


def _params(rows: Rows, slots: Tensor) -> RowParams:
    """Of slots (K,)."""
    values = rows.params[:, slots]
    return RowParams(values, rows.weights, rows.seed[slots], active(values.cpu().numpy()))


def _of(params: RowParams, rows: Tensor) -> RowParams:
    """Of rows (M,) of them, which may be there several times."""
    return dataclasses.replace(params, values=params.values[:, rows], seed=params.seed[rows])
