"""The state space model of Mamba-2 (arXiv 2405.21060): one step, the plain recurrence, and the
chunked parallel form.

Shapes: R or B rows, T items, H heads, P channels a head, N state size. B and C are shared by all
heads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aim.ops.triton import TRITON


def state_step(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    out: Tensor | None = None,
) -> Tensor:
    """``h = h * exp(dt A) + dt x B^T; y = h C + D x``; updates ``state`` in place, or
    writes the new one to ``out``.

    state (R, H, P, N), x (R, H, P), dt (R, H) after softplus, A (H,) negative, B and C (R, N), D
    (H,) -> y (R, H, P). Everything float32. Where dt is 0 the state does not change.
    """
    rows, heads, channels, size = state.shape
    state = torch.mul(state, torch.exp(dt * A)[..., None, None], out=state if out is None else out)
    flat = state.view(rows, heads * channels, size)
    flat.addcmul_((x * dt[..., None]).view(rows, -1, 1), B.unsqueeze(1))
    # 9 times as fast on a CPU as flat @ C
    y = torch.bmm(C.unsqueeze(1), flat.transpose(1, 2)).view(rows, heads, channels)
    return torch.addcmul(y, x, D[:, None])


def scan_recurrent(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> tuple[Tensor, Tensor]:
    """The recurrence item by item: slow and obvious, the twin that the fast forms are tested
    against.

    x (B, T, H, P), dt (B, T, H), A (H,), B and C (B, T, N), D (H,) -> y (B, T, H, P), last state
    (B, H, P, N).
    """
    state = x.new_zeros(x.shape[0], x.shape[2], x.shape[3], B.shape[2])
    steps = [
        state_step(state, x[:, t], dt[:, t], A, B[:, t], C[:, t], D) for t in range(x.shape[1])
    ]
    return torch.stack(steps, 1), state


def scan_chunked(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    chunk: int = 128,
    need_state: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """The same in parallel: quadratic inside chunks, a short recurrence between them (section 6 of
    the paper).

    x (B, T, H, P), dt (B, T, H) float32, A (H,), B and C (B, T, N), D (H,) -> y (B, T, H, P) in x's
    dtype and the last state (B, H, P, N) float32, or None. Any T: the tail is padded with dt = 0,
    which leaves the state alone.
    """
    length, heads, channels = x.shape[1:]
    chunk = min(chunk, length)
    pad = -length % chunk
    if pad:
        x, dt, B, C = (
            torch.nn.functional.pad(t, (0, 0) * (t.dim() - 2) + (0, pad)) for t in (x, dt, B, C)
        )
    count = (length + pad) // chunk
    x, dt, B, C = (t.unflatten(1, (count, chunk)) for t in (x, dt, B, C))  # (B, K, c, ...)

    log_decay = torch.cumsum(dt * A, dim=2).transpose(2, 3)  # (B, K, H, c), inclusive
    dtx = (x * dt[..., None].to(x.dtype)).transpose(2, 3)  # (B, K, H, c, P)

    # inside a chunk: y_t = sum_{s <= t} (C_t . B_s) exp(l_t - l_s) dt_s x_s
    gram = torch.matmul(C, B.transpose(-1, -2))  # (B, K, c, c)
    mask = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    # of shape (B, K, H, c, c)
    decay = (log_decay[..., :, None] - log_decay[..., None, :]).masked_fill(~mask, -torch.inf).exp()
    y = torch.matmul((gram.unsqueeze(2) * decay).to(x.dtype), dtx)  # (B, K, H, c, P)

    # between chunks: carry the state that each chunk leaves behind; the last one's only if it is
    # asked for
    sources = count if need_state else count - 1
    state = None
    if sources:
        to_end = (log_decay[:, :sources, :, -1:] - log_decay[:, :sources]).exp()  # (B, S, H, c)
        # of shape (B, S, H*P, c)
        left = (dtx[:, :sources] * to_end[..., None].to(x.dtype)).transpose(3, 4).flatten(2, 3)
        # of shape (B, S, H, P, N)
        added = torch.matmul(left, B[:, :sources]).float().unflatten(2, (heads, channels))
        whole = log_decay[:, :sources, :, -1].exp()[..., None, None]  # (B, S, H, 1, 1)
        states = [added[:, 0]]
        for k in range(1, sources):
            states.append(states[-1] * whole[:, k] + added[:, k])
        state = states[-1] if need_state else None
        if count > 1:
            # of shape (B, K - 1, H*P, N)
            entering = torch.stack(states[: count - 1], 1).to(x.dtype).flatten(2, 3)
            carried = (
                torch.matmul(C[:, 1:], entering.transpose(2, 3))
                .unflatten(3, (heads, channels))
                .transpose(2, 3)
            )
            carried = carried * log_decay[:, 1:].exp()[..., None].to(x.dtype)  # (B, K - 1, H, c, P)
            y = torch.cat([y[:, :1], y[:, 1:] + carried], 1)

    y = y.transpose(2, 3) + x * D[:, None].to(x.dtype)  # (B, K, c, H, P)
    return y.flatten(1, 2)[:, :length], state


def parallel_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, need_state: bool = True
) -> tuple[Tensor, Tensor | None]:
    """``scan_chunked``, or the fused kernel where it suits: on a GPU with Triton, a short sequence
    whose last state is not asked for.
    """
    if (
        TRITON
        and x.is_cuda
        and not need_state
        and x.shape[1] <= 1024
        and x.shape[3] in (16, 32, 64, 128)
    ):
        from aim.ops.triton.scan import scan_mixing

        return scan_mixing(x, dt, A, B, C, D), None
    return scan_chunked(x, dt, A, B, C, D, need_state=need_state)
