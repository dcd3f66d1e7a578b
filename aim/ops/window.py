"""The mixing of one Mamba-2 step without writing the state at every step.

``y_t = exp(l_t) (C_t . h) + sum_s (C_t . B_s) exp(l_t - l_s) dt_s x_s + D x_t``: h is the state as
it stood at the ``origin``, s runs over the items read since then (the *window*), and l is the
running sum of ``dt A`` since the origin. A step so reads h and the window and writes one item;
``fold`` brings h up to date when the window is full. While the origin is 0, h is zero and not read.
The window holds ``first`` items then, ``fold`` items afterwards, counted by each row's own
position, so that a row's rounding does not depend on who shares its batch.

Shapes: R rows, H heads of P channels, state size N, window W, I = H P, conv_dim = I + 2 N, E = I +
conv_dim + H.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Window(NamedTuple):
    """What is remembered of the past, of one layer or, with a dimension more in front, of all.
    Pooled by slot; row i is slot i.
    """

    ring: Tensor  # (S, K, conv_dim) the last K items before the convolution, item t at t % K
    items: Tensor  # (S, H, W, P) dt x of the items since the origin
    keys: Tensor  # (S, W, N) B of them
    decay: Tensor  # (S, H, W) float32, l of them
    base: Tensor  # (S, H, P, N) h


class MixWeights(NamedTuple):
    """Weights of one layer's mixing: float32, but for the convolution's, which may be as the model
    has them.
    """

    taps: Tensor  # (K, conv_dim), the oldest first
    tap_bias: Tensor  # (conv_dim,)
    dt_bias: Tensor  # (H,)
    A: Tensor  # (H,) negative
    D: Tensor  # (H,)
    norm: Tensor  # (I,)


def mix_reference(
    projected: Tensor, window: Window, weights: MixWeights, positions: Tensor, origins: Tensor
) -> tuple[Tensor, Tensor]:
    """What ``mix`` computes, row by row in PyTorch: returns out (R, I) and the sum of squares (R,),
    both float32; updates the window.
    """
    heads, channels, size = window.base.shape[1:]
    inner, taps, held = heads * channels, len(weights.taps), window.ring.shape[1]
    out, squares = (
        torch.zeros(len(projected), *shape, device=projected.device) for shape in ((inner,), ())
    )
    for row, pos in enumerate(positions[: len(projected)].tolist()):
        if pos < 0:
            continue
        past = pos - int(origins[row])
        z, new, dt = projected[row].float().split([inner, inner + 2 * size, heads])
        window.ring[row, pos % held] = new
        mixed = weights.tap_bias.clone()
        for k in range(min(taps, pos + 1)):
            mixed += window.ring[row, (pos - k) % held].float() * weights.taps[taps - 1 - k]
        x, B, C = torch.nn.functional.silu(mixed).split([inner, size, size])
        dt = torch.nn.functional.softplus(dt + weights.dt_bias)
        window.decay[row, :, past] = dt * weights.A + (
            window.decay[row, :, past - 1] if past else 0
        )
        window.items[row, :, past] = x.view(heads, channels) * dt[:, None]
        window.keys[row, past] = B
        since = window.decay[row, :, past, None] - window.decay[row, :, : past + 1]  # (H, past + 1)
        scores = (window.keys[row, : past + 1].float() @ C) * since.exp()
        y = (
            torch.einsum("hs,hsp->hp", scores, window.items[row, :, : past + 1].float())
            + x.view(heads, channels) * weights.D[:, None]
        )
        if origins[row] > 0:
            y += (window.base[row].float() @ C) * window.decay[row, :, past].exp()[:, None]
        gated = y.flatten() * torch.nn.functional.silu(z)
        out[row], squares[row] = gated * weights.norm, gated.square().sum()
    return out, squares


def fold_reference(
    windows: Window, positions: Tensor, origins: Tensor, rows: int, first: int, often: int
) -> None:
    """What ``fold`` computes, in PyTorch."""
    heads, channels = windows.base.shape[2:4]
    for row in range(rows):
        pos, origin = int(positions[row]), int(origins[row])
        count = pos - origin + 1
        if pos < 0 or count < (often if origin else first):
            continue
        decay = windows.decay[:, row, :, :count]  # (L, H, count)
        items = (
            windows.items[:, row, :, :count].float() * (decay[..., -1:] - decay).exp()[..., None]
        )
        added = torch.einsum("lhsp,lsn->lhpn", items, windows.keys[:, row, :count].float())
        kept = windows.base[:, row].float() * decay[..., -1].exp()[..., None, None] if origin else 0
        windows.base[:, row] = kept + added
