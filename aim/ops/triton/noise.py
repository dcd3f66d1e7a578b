"""The noise of a draw: ``ops.draw`` says what it is. Multiplications and additions are not to be
fused.
"""

from __future__ import annotations

import triton
import triton.language as tl

from aim.ops import draw

STRIDE: tl.constexpr = tl.constexpr(draw.STRIDE)
ROW_OFFSET: tl.constexpr = tl.constexpr(draw.ROW_OFFSET)
CODE_OFFSET: tl.constexpr = tl.constexpr(draw.CODE_OFFSET)
BELOW_ONE: tl.constexpr = tl.constexpr(draw.BELOW_ONE)
# for exponents that are still in their place among the bits
LOG_2: tl.constexpr = tl.constexpr(0.693147182464599609375 * 2**-23)


@triton.jit
def _mix(x):
    """``ops.draw._mix`` of uint32."""
    x ^= x >> 16
    x *= 0x7FEB352D
    x ^= x >> 15
    x *= 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def uniform(codes, seed, position):
    """``ops.draw.uniform`` of one row, bit for bit."""
    row = _mix(seed.to(tl.uint32) + position.to(tl.uint32) * STRIDE + ROW_OFFSET)
    hashed = _mix(row ^ _mix(codes.to(tl.uint32) + CODE_OFFSET))
    return tl.minimum(tl.fma(hashed.to(tl.float32), 2.0**-32, 2.0**-33), BELOW_ONE)


@triton.jit
def _exponent(x):
    """The power of two, as an offset to the bits, that x > 0 is to be divided by to lie in [3/4,
    3/2).
    """
    return (x.to(tl.int32, bitcast=True) - 0x3F400000) & -0x800000


@triton.jit
def _scaled(x, exponent):
    """x divided by the power of two; x not 0."""
    return (x.to(tl.int32, bitcast=True) - exponent).to(tl.float32, bitcast=True)


@triton.jit
def _log(m, exponent):
    """``log((1 + m) 2^k)`` to float32 accuracy: m in [-1/4, 1/2], k as ``_exponent`` has it. The
    hardware's is poor near 1.
    """
    s = m * m
    even = tl.fma(
        tl.fma(tl.fma(-4.53948975e-2, s, -1.32274792e-1), s, -1.66412741e-1), s, -2.50002742e-1
    )
    odd = tl.fma(tl.fma(1.05468750e-1, s, 1.44911826e-1), s, 1.99887201e-1)
    series = tl.fma(tl.fma(tl.fma(odd, m, even), m, 3.33335280e-1), m, -4.99999970e-1)
    return tl.fma(exponent.to(tl.float32), LOG_2, tl.fma(series, s, m))


@triton.jit
def gumbel(u):
    """``-log(-log1p(-u))``, u in (0, 1). Where 1 - u rounds, ``(1 - u) / 2^k - 1`` is still
    computed exactly.
    """
    exponent = _exponent(1.0 - u)
    waiting = -_log(
        _scaled(-u, exponent) + (_scaled(tl.full((), 1.0, tl.float32), exponent) - 1.0), exponent
    )
    exponent = _exponent(waiting)
    return -_log(_scaled(waiting, exponent) - 1.0, exponent)
