"""The kernels of mamba-ssm (2.2 and later) and causal-conv1d (1.4 and later) behind the signatures
of ``ops.scan`` and ``ops.conv``.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 256  # items, as in mamba-ssm's own Mamba2


def state_step(
    state: Tensor, x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor
) -> Tensor:
    """``ops.scan.state_step`` by mamba-ssm's selective_state_update."""
    from mamba_ssm.ops.triton.selective_state_update import selective_state_update

    # (H, P, N); strides of 0 tell the kernel that a head's channels share dt and A
    shape = state.shape[1:]
    D = D[:, None].expand(shape[:2])
    bias = torch.zeros_like(D[:, :1]).expand(shape[:2])  # the kernel fails without one
    return selective_state_update(
        state,
        x,
        dt[..., None].expand(x.shape),
        A[:, None, None].expand(shape),
        B,
        C,
        D,
        dt_bias=bias,
    )


def conv_advance(x: Tensor, past: Tensor, weight: Tensor, bias: Tensor, idle: Tensor) -> Tensor:
    """``ops.conv.conv_advance`` by causal-conv1d's causal_conv1d_update; 2 to 4 taps."""
    from causal_conv1d import causal_conv1d_update

    # the kernel advances every row; that it skips some is new and not documented
    kept = past.clone()
    out = causal_conv1d_update(x, past.transpose(1, 2), weight, bias, activation="silu")
    past.copy_(torch.where(idle[:, None, None], kept, past))
    return out


@torch.compiler.disable
def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``ops.conv.causal_conv`` by causal-conv1d's causal_conv1d_fn; 2 to 4 taps, a multiple of 8
    channels.
    """
    from causal_conv1d import causal_conv1d_fn

    if x.stride(2) != 1 or x.stride(0) % 8 or x.stride(1) % 8:
        x = x.contiguous()
    return causal_conv1d_fn(x.transpose(1, 2), weight, bias, activation="silu").transpose(1, 2)


@torch.compiler.disable
def parallel_scan(
    x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, D: Tensor, need_state: bool = True
) -> tuple[Tensor, Tensor | None]:
    """``ops.scan.parallel_scan`` by mamba-ssm's mamba_chunk_scan_combined."""
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    B, C = B.unsqueeze(2), C.unsqueeze(2)  # one group
    out = mamba_chunk_scan_combined(x, dt, A, B, C, CHUNK, D=D, return_final_states=need_state)
    return out if need_state else (out, None)
