"""What the decoding kernels share: launching, waiting for the kernel before, products, two
activations.
"""

from __future__ import annotations

import os
from typing import Any

import torch
import triton
import triton.language as tl

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
# the interpreter takes the bits of bfloat16 for integers in a product
WIDEN: tl.constexpr = tl.constexpr(INTERPRETED)
INF: tl.constexpr = tl.constexpr(float("inf"))
# items of a row in one pass, at most: the least that a matrix unit multiplies by
COLUMNS: tl.constexpr = tl.constexpr(16)


def overlaps(device: torch.device) -> bool:
    """Whether a kernel may start while the one before it ends (programmatic dependent launch,
    capability 9.0 and later).
    """
    if device.type != "cuda" or INTERPRETED or torch.version.hip is not None:
        return False
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    return version >= (3, 5) and torch.cuda.get_device_capability(device) >= (9, 0)


def options(overlap: bool, **more: Any) -> dict[str, Any]:
    """Launch options; ``launch_pdl`` is named only where it is used, and ``maxnreg`` on a GPU,
    since the interpreter knows neither.
    """
    if INTERPRETED:
        more.pop("maxnreg", None)
    return {**more, "OVERLAP": overlap, **({"launch_pdl": True} if overlap else {})}


@triton.jit
def wait(OVERLAP: tl.constexpr):
    """Everything that earlier kernels wrote may be read, and written over, from here on; the next
    kernel may start up to here.
    """
    if OVERLAP:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def dot(a, b, acc):
    """``acc + a b`` in float32; float32 operands are not rounded to TF32."""
    if WIDEN:
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def silu(x):
    """``x * sigmoid(x)``."""
    return x / (1.0 + tl.exp(-x))


@triton.jit
def softplus(x):
    """``log(1 + exp(x))`` to float32 accuracy: the logarithm as 2 atanh(u / (2 + u)), since the
    fast one is poor near 1.
    """
    u = tl.exp(-tl.abs(x))
    s = u / (2.0 + u)
    q = s * s
    series = 1.0 + q * (
        1.0 / 3
        + q * (1.0 / 5 + q * (1.0 / 7 + q * (1.0 / 9 + q * (1.0 / 11 + q * (1.0 / 13 + q / 15)))))
    )
    return tl.maximum(x, 0.0) + 2.0 * s * series
