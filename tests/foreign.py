"""Stand-ins for mamba-ssm and causal-conv1d: their documented functions in PyTorch, slow and
obvious, and as picky about what they take.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

PACKAGES = ("mamba_ssm", "causal_conv1d")


def selective_state_update(
    state: Tensor,
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    dt_bias: Tensor,
    dt_softplus: bool = False,
) -> Tensor:
    """state (R, H, P, N) in place, x and dt (R, H, P), A (H, P, N), B and C (R, N), D and dt_bias
    (H, P) -> (R, H, P) in x's dtype.
    """
    rows, heads, channels, size = state.shape
    assert x.shape == dt.shape == (rows, heads, channels) and A.shape == (heads, channels, size)
    assert B.shape == C.shape == (rows, size) and D.shape == dt_bias.shape == (heads, channels)
    assert not any((A.stride(1), A.stride(2), dt.stride(2), dt_bias.stride(1))), (
        "the fast kernel is for one dt and A a head"
    )
    dt = dt.float() + dt_bias
    dt = F.softplus(dt) if dt_softplus else dt
    added = torch.einsum("rhp,rhp,rn->rhpn", dt, x.float(), B.float())
    state.copy_(state * torch.exp(dt[..., None] * A) + added)
    return (torch.einsum("rhpn,rn->rhp", state.float(), C.float()) + x * D).to(x.dtype)


def mamba_chunk_scan_combined(
    x: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    chunk_size: int,
    D: Tensor,
    return_final_states: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """x (B, T, H, P), dt (B, T, H), A (H,), B and C (B, T, G, N), D (H,) -> like x, and the last
    state (B, H, P, N) float32.
    """
    rows, length, heads, channels = x.shape
    assert dt.shape == (rows, length, heads) and A.shape == D.shape == (heads,) and chunk_size >= 16
    assert B.shape == C.shape and B.shape[:3] == (rows, length, 1)
    state, out = torch.zeros(rows, heads, channels, B.shape[3]), []
    for t in range(length):
        decay = torch.exp(dt[:, t] * A)[..., None, None]
        state = state * decay + torch.einsum(
            "bh,bhp,bn->bhpn", dt[:, t], x[:, t].float(), B[:, t, 0].float()
        )
        out.append(torch.einsum("bhpn,bn->bhp", state, C[:, t, 0].float()) + D[:, None] * x[:, t])
    y = torch.stack(out, 1).to(x.dtype)
    return (y, state) if return_final_states else y


def causal_conv1d_fn(x: Tensor, weight: Tensor, bias: Tensor, activation: str) -> Tensor:
    """x (B, C, T) with the channels last in memory, weight (C, K), bias (C,) -> (B, C, T)."""
    channels, taps = weight.shape
    assert (
        x.shape[1] == channels
        and bias.shape == (channels,)
        and bias.dtype == weight.dtype
        and activation == "silu"
    )
    assert (
        2 <= taps <= 4
        and x.stride(1) == 1
        and not any(n % 8 for n in (channels, x.stride(0), x.stride(2)))
    )
    out = F.conv1d(
        x.to(weight.dtype), weight.unsqueeze(1), bias, padding=taps - 1, groups=channels
    )[..., : x.shape[2]]
    return F.silu(out).to(x.dtype)


def causal_conv1d_update(
    x: Tensor, conv_state: Tensor, weight: Tensor, bias: Tensor, activation: str
) -> Tensor:
    """x (R, C), conv_state (R, C, K - 1 or more) in place and oldest first, weight (C, K), bias
    (C,) -> (R, C).
    """
    channels, taps = weight.shape
    length = conv_state.shape[2]
    assert (
        x.shape == conv_state.shape[:2]
        and x.shape[1] == channels
        and length >= taps - 1
        and 2 <= taps <= 4
    )
    assert conv_state.dtype == x.dtype and bias.dtype == weight.dtype and activation == "silu"
    seen = torch.cat([conv_state, x.unsqueeze(2)], 2)
    conv_state.copy_(seen[:, :, -length:])
    return F.silu((seen[:, :, -taps:].float() * weight.float()).sum(2) + bias).to(x.dtype)


def install(monkeypatch: pytest.MonkeyPatch, packages: Iterable[str] = PACKAGES) -> None:
    """Have ``packages`` import as these, and the others of ``PACKAGES`` not at all."""
    modules = {
        "mamba_ssm": {},
        "mamba_ssm.ops": {},
        "mamba_ssm.ops.triton": {},
        "mamba_ssm.ops.triton.selective_state_update": {
            "selective_state_update": selective_state_update
        },
        "mamba_ssm.ops.triton.ssd_combined": {
            "mamba_chunk_scan_combined": mamba_chunk_scan_combined
        },
        "causal_conv1d": {
            "causal_conv1d_fn": causal_conv1d_fn,
            "causal_conv1d_update": causal_conv1d_update,
        },
    }
    for name, functions in modules.items():
        module = ModuleType(name)
        vars(module).update(functions, __path__=[])
        monkeypatch.setitem(
            sys.modules, name, module if name.partition(".")[0] in packages else None
        )  # type: ignore[arg-type]
