"""The Mamba-2 mixer (arXiv 2405.21060; state-spaces/mamba ``Mamba2``), in a parallel and a stepping
form.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aim.config import AiMConfig
from aim.ops.activation import softplus
from aim.ops.linear import Linear
from aim.ops.mixer import OURS, Sequences, Steps, sequences
from aim.ops.norm import gated_rms_norm, rms_norm


class RMSNorm(nn.Module):
    """Root-mean-square norm with a float32 weight; float32 out. The mixer's is gated."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """(..., D) -> (..., D) float32, of ``x * silu(gate)`` where a gate (..., D) is given."""
        return (
            rms_norm(x, self.weight, self.eps)
            if gate is None
            else gated_rms_norm(x, gate, self.weight, self.eps)
        )


class Mamba2(nn.Module):
    """One mixer. Projection order z, x, B, C, dt; the convolution runs over x, B and C together."""

    def __init__(self, config: AiMConfig) -> None:
        super().__init__()
        self.config = config
        self.use(sequences())
        inner, heads = config.d_inner, config.nheads
        self.in_proj = Linear(config.d_model, inner + config.conv_dim + heads, bias=False)
        self.conv1d = nn.Conv1d(
            config.conv_dim, config.conv_dim, config.d_conv, groups=config.conv_dim
        )
        self.dt_bias = nn.Parameter(torch.empty(heads))
        self.A_log = nn.Parameter(torch.empty(heads))
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = RMSNorm(inner, config.norm_eps)
        self.out_proj = Linear(inner, config.d_model, bias=False)
        if not self.D.is_meta:  # the first arithmetic on the meta device imports for a second
            self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        """Step sizes spread evenly on a log scale over [0.001, 0.1], decay rates evenly over [1,
        16].
        """
        dt = torch.exp(
            torch.rand_like(self.dt_bias) * (math.log(0.1) - math.log(0.001)) + math.log(0.001)
        ).clamp(min=1e-4)
        self.dt_bias.copy_(dt + torch.log(-torch.expm1(-dt)))
        self.A_log.uniform_(1, 16).log_()

    def use(self, over: Sequences) -> None:
        """What ``forward`` computes with from now on."""
        self._conv, self._scan = over

    def forward(self, x: Tensor) -> Tensor:
        """A whole sequence from an empty state. x (B, T, D) -> (B, T, D)."""
        return self._sequence(x, need_state=False)[0]

    def prefill(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``forward``, and the state after the last item: conv (B, K - 1, conv_dim) and ssm (B, H,
        P, N).
        """
        y, xbc, ssm = self._sequence(x, need_state=True)
        past = self.config.d_conv - 1
        return y, F.pad(xbc, (0, 0, past, 0))[:, -past:], cast(Tensor, ssm)

    def step(
        self, x: Tensor, conv: Tensor, ssm: Tensor, idle: Tensor, steps: Steps = OURS
    ) -> Tensor:
        """One item a row. x (R, D), conv (R, K - 1, conv_dim), ssm (R, H, P, N), idle (R,) bool ->
        (R, D).

        Updates ``conv`` and ``ssm`` in place, except where ``idle``, by ``steps``.
        """
        z, xbc, dt = self._project(x)
        return self._out(self._mix(xbc, dt, conv, ssm, idle, steps), z)

    def advance(self, x: Tensor, conv: Tensor, ssm: Tensor, idle: Tensor, read: Tensor) -> Tensor:
        """W items a row, and the state as it was: x (R, W, D), conv and ssm as in ``step``, idle
        (R, W) bool -> (R, W, D).

        ``read (R, W, conv_dim + H)`` is overwritten with what ``settle`` wants of them.
        """
        z, xbc, dt = self._project(x)
        torch.cat([xbc.float(), dt], -1, out=read)
        conv, ssm = conv.clone(), ssm.clone()
        items = zip(xbc.unbind(1), dt.unbind(1), idle.unbind(1), strict=True)
        y = [self._mix(one, step, conv, ssm, off, OURS) for one, step, off in items]
        return self._out(torch.stack(y, 1), z)

    def settle(self, counts: Tensor, conv: Tensor, ssm: Tensor, read: Tensor) -> None:
        """``step`` once more for the first ``counts (R,)`` items of ``read``, for the state alone.
        What is not settled may be NaN, so it is not multiplied by 0 either.
        """
        for i, item in enumerate(read.unbind(1)):
            idle = counts <= i
            item = item.masked_fill(idle.unsqueeze(1), 0.0)
            xbc, dt = item.split([self.config.conv_dim, self.config.nheads], -1)
            self._mix(xbc.to(conv.dtype), dt, conv, ssm, idle, OURS)

    def _mix(
        self, xbc: Tensor, dt: Tensor, conv: Tensor, ssm: Tensor, idle: Tensor, steps: Steps
    ) -> Tensor:
        """One item a row, (R, conv_dim) and (R, H) -> (R, inner); ``conv`` and ``ssm`` take it
        in, except where ``idle``.
        """
        mixed = steps.conv(xbc, conv, *self._taps(), idle)
        heads, B, C = self._heads(mixed.float())
        dt = dt.masked_fill(idle[:, None], 0.0)
        return steps.state(ssm, heads, dt, self._A(), B, C, self.D).flatten(-2)

    def _sequence(self, x: Tensor, need_state: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        z, xbc, dt = self._project(x)  # (B, T, inner), (B, T, conv_dim), (B, T, H)
        heads, B, C = self._heads(self._conv(xbc, *self._taps()))
        y, ssm = self._scan(heads, dt, self._A(), B, C, self.D, need_state=need_state)
        return self._out(y.flatten(-2), z), xbc, ssm

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c = self.config
        z, xbc, dt = self.in_proj(x.to(self.in_proj.weight.dtype)).split(
            [c.d_inner, c.conv_dim, c.nheads], -1
        )
        return z, xbc, softplus(dt.float() + self.dt_bias)

    def _taps(self) -> tuple[Tensor, Tensor]:
        # of shape (conv_dim, K), (conv_dim,)
        return self.conv1d.weight.squeeze(1), cast(Tensor, self.conv1d.bias)

    def _heads(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        c = self.config
        x, B, C = mixed.split([c.d_inner, c.d_state, c.d_state], -1)
        return x.unflatten(-1, (c.nheads, c.headdim)), B, C

    def _A(self) -> Tensor:
        return -torch.exp(self.A_log)

    def _out(self, y: Tensor, z: Tensor) -> Tensor:
        return self.out_proj(self.norm(y, z).to(self.out_proj.weight.dtype))
