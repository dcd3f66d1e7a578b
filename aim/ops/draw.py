"""Counter-based noise: every number is a hash of (seed, position, code), so a draw depends on
nothing else.

The arithmetic is that of unsigned 32-bit integers, written with masked int64, which PyTorch has on
every device::

    mix(x):  x ^= x >> 16;  x *= 0x7FEB352D;  x ^= x >> 15;  x *= 0x846CA68B;  x ^= x >> 16
    hash  =  mix(mix(seed + position * 0x9E3779B9 + 0x85EBCA6B) ^ mix(v + 0xC2B2AE35))
    u     =  min((float32(hash) + 0.5) * 2^-32, 1 - 2^-24)

``mix`` is Chris Wellons' lowbias32, a bijection. The golden-ratio stride keeps the (seed, position)
pairs of nearby seeds apart: in sequences of up to 2048 codes no two seeds less than a million apart
share a row of noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
STRIDE = 0x9E3779B9
ROW_OFFSET = 0x85EBCA6B  # without the offsets, seed 0 at position 0 would hash code 0 to 0
CODE_OFFSET = 0xC2B2AE35
BELOW_ONE = 1 - 2**-24  # largest float32 under 1
# a longer logarithm wakes PyTorch's thread pool on a CPU: milliseconds, where another process has
# the core
SERIAL = 2048


def uniform(seeds: Tensor, positions: Tensor, codes: int) -> Tensor:
    """Uniform noise strictly inside (0, 1): seeds (K,) in [0, 2^32), positions (K,) int64 -> (K,
    codes) float32.

    Small values keep 32 bits of resolution, since it is the small ones that win a draw.
    """
    rows = _mix(positions.mul(STRIDE).add_(seeds).add_(ROW_OFFSET).bitwise_and_(MASK))  # (K,)
    hashed = _mix(rows.unsqueeze(1) ^ _mixed_codes(codes, seeds.device))  # (K, V)
    return hashed.float().add_(0.5).mul_(2.0**-32).clamp_(max=BELOW_ONE)


def gumbel(seeds: Tensor, positions: Tensor, codes: int) -> Tensor:
    """Gumbel noise ``-log(E)``, E = ``-log1p(-u)`` exponential: seeds (K,), positions (K,) -> (K,
    codes) float32, finite.
    """
    noise = uniform(seeds, positions, codes).neg_()
    for piece in pieces(noise):
        piece.log1p_().neg_().log_()
    return noise.neg_()


def pieces(x: Tensor) -> Sequence[Tensor]:
    """Views that together are ``x`` (contiguous), each short enough that one thread takes its
    logarithm or exponential.
    """
    return x.view(-1).split(SERIAL) if x.device.type == "cpu" else (x,)


def _mix(x: Tensor) -> Tensor:
    """Hash int64 values that hold unsigned 32-bit integers, in place. A product that overflows
    keeps its low 32 bits.
    """
    x.bitwise_xor_(x >> 16).mul_(0x7FEB352D).bitwise_and_(MASK)
    x.bitwise_xor_(x >> 15).mul_(0x846CA68B).bitwise_and_(MASK)
    return x.bitwise_xor_(x >> 16)


@lru_cache(maxsize=16)
def _mixed_codes(codes: int, device: torch.device) -> Tensor:
    """The part of the hash that depends on the code alone: (codes,) int64. Read only."""
    with torch.inference_mode(False):
        return _mix(torch.arange(codes, device=device).add_(CODE_OFFSET))
